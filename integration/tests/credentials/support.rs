//! A home directory, a tool that sees only it, and what all tests ask.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use integration::tool;
use tempfile::TempDir;

/// What must never be seen in a message or a log.
pub(crate) const SECRET: &str = "hunter2-0123456789-hunter2";

/// A home directory of its own.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::with_prefix("vdstream-home-").unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A program that prints `text` and ends with `status`.
    pub(crate) fn program(&self, name: &str, text: &str, status: u8) -> String {
        let path = self
            .write(name, &format!("#!/bin/sh\necho \"$@\" >> \"$0.calls\"\ncat <<'END'\n{text}\nEND\nexit {status}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The tool, with this home and no other credentials. It logs everything.
    pub(crate) fn tool(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = tool::vdstream_command();
        command.env("HOME", self.dir.path()).env("VDSTREAM_LOG", "trace").args(arguments).stdin(Stdio::null());
        command.envs(environment.iter().copied());
        let output = command.output().unwrap();
        for seen in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(seen);
            assert!(!text.contains(SECRET), "{arguments:?} shows a secret:\n{text}");
        }
        output
    }

    /// The same for what must succeed.
    pub(crate) fn succeed(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let output = self.tool(arguments, environment);
        assert!(output.status.success(), "{arguments:?} with {environment:?}: {}", tail(&output));
        output
    }

    /// A backup to `url` and its restore, with these credentials.
    pub(crate) fn round_trip(&self, url: &str, environment: &[(&str, &str)]) {
        let input = self.write("input", "every order of the day");
        self.succeed(&["backup", url, "--input", &input, "--quiet"], environment);
        let restored = self.path("restored");
        self.succeed(&["restore", url, "latest", "--output", &restored, "--quiet"], environment);
        assert_eq!(fs::read(&restored).unwrap(), b"every order of the day");
        fs::remove_file(restored).unwrap();
    }

    /// Fails for want of credentials; the last line of what it said.
    pub(crate) fn denied(&self, url: &str, environment: &[(&str, &str)]) -> String {
        let output = self.tool(&["list", url], environment);
        assert_eq!(output.status.code(), Some(13), "{}", tail(&output));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().last().unwrap().to_owned()
    }
}

fn tail(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A front that speaks TLS for a server that does not, with a certificate of its own authority.
pub(crate) struct TlsFront {
    process: Child,
    pub(crate) endpoint: String,
    pub(crate) authority: String,
}

impl TlsFront {
    pub(crate) fn before(endpoint: &str, home: &Home) -> Self {
        let (authority, certificate, key) = (home.path("authority.pem"), home.path("server.pem"), home.path("key.pem"));
        let signing_key = home.path("authority.key");
        let make = |options: &[&str]| {
            let mut command = Command::new("openssl");
            command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
            let made = command.args(["-days", "2"]).args(options).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        };
        make(&["-subj", "/CN=authority", "-keyout", &signing_key, "-out", &authority]);
        let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
        let signed =
            ["-subj", "/CN=server", "-CA", &authority, "-CAkey", &signing_key, "-keyout", &key, "-out", &certificate];
        make(&[&signed[..], &names].concat());
        let mut process = Command::new("python3")
            .args(["-c", FRONT, endpoint.trim_start_matches("http://"), &certificate, &key])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port = port.trim();
        Self { process, endpoint: format!("https://127.0.0.1:{port}"), authority }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const FRONT: &str = r#"
import socket, ssl, sys, threading
server, certificate, key = sys.argv[1:]
host, _, behind = server.partition(":")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for end in (a, b):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
        upstream = socket.create_connection((host, int(behind)))
    except OSError:
        return
    threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
    pump(client, upstream)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;
