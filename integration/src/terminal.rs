//! A terminal for programs that ask there and nowhere else.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a shell script with a terminal, and types a line whenever it asks. What was seen on the terminal is the output.
///
/// # Panics
///
/// When there is no python.
pub fn at_terminal(directory: &Path, script: &str, lines: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.current_dir(directory).args(["-c", DRIVER, script]).args(lines).stdin(Stdio::null());
    command.output().expect("python runs")
}

const DRIVER: &str = r#"
import os, pty, sys, time
script, lines = sys.argv[1], sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "-c", script])
seen, shown = b"", 0
while True:
    try:
        chunk = os.read(fd, 4096)
    except OSError:
        break
    if not chunk:
        break
    seen += chunk
    while lines and seen.count(b": ", shown) > 0:
        shown = seen.index(b": ", shown) + 2
        # The answer comes only after the prompt, when the echo is off.
        line = lines.pop(0)
        os.write(fd, line.encode() + (b"" if line == "\x03" else b"\n"))
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(status))
"#;
