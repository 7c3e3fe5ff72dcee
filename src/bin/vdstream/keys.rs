//! Keys of encrypted backups: read from files or asked for at the terminal, never taken from arguments.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use vdstream::backup::{BackupOptions, Manifest, Store, unlock};
use vdstream::pipeline::{Identities, Passphrase, Recipients};
use vdstream::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::args;
use crate::output;

/// For whom a backup is encrypted.
#[derive(Debug, Args)]
pub(crate) struct Readers {
    /// Encrypt to this public key: age1…, ssh-ed25519 …, ssh-rsa …; repeat for more
    #[arg(long, value_name = "KEY")]
    pub(crate) recipient: Vec<String>,
    /// Encrypt to every public key in this file
    ///
    /// One per line; repeat for more files.
    #[arg(long, value_name = "FILE", env = RECIPIENTS_FILE, hide_env_values = true)]
    pub(crate) recipients_file: Vec<PathBuf>,
    /// Encrypt with a passphrase too, asked for at the terminal
    #[arg(hide_short_help = true, long)]
    pub(crate) passphrase: bool,
    /// Encrypt with the passphrase in this file too
    #[arg(hide_short_help = true, long, value_name = "FILE", env = PASSPHRASE_FILE, hide_env_values = true)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// What opens a backup.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// A file with private keys, of age or of SSH, which open the backup; repeat for more
    #[arg(long, short, value_name = "FILE", env = "VDSTREAM_IDENTITY", hide_env_values = true)]
    pub(crate) identity: Vec<PathBuf>,
    /// The passphrase of the backup or of the identity file [default: ask for it at the terminal]
    #[arg(hide_short_help = true, long, value_name = "FILE", env = PASSPHRASE_FILE, hide_env_values = true)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

const RECIPIENTS_FILE: &str = "VDSTREAM_RECIPIENTS_FILE";
const PASSPHRASE_FILE: &str = "VDSTREAM_PASSPHRASE_FILE";

/// The most bytes of a file with keys.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Readers {
    /// The first of them that was typed; what a variable says is for backups that are begun.
    pub(crate) fn typed(&self) -> Option<&'static str> {
        let options = [
            (!self.recipient.is_empty(), "--recipient"),
            (is_typed(&self.recipients_file, RECIPIENTS_FILE), "--recipients-file"),
            (self.passphrase, "--passphrase"),
            (is_typed(self.passphrase_file.as_slice(), PASSPHRASE_FILE), "--passphrase-file"),
        ];
        options.into_iter().find_map(|(is_typed, option)| is_typed.then_some(option))
    }

    /// Refuses two passphrases.
    fn check(&self) -> Result<()> {
        let Some(file) = &self.passphrase_file else { return Ok(()) };
        if !self.passphrase {
            return Ok(());
        }
        Err(invalid(match is_typed(std::slice::from_ref(file), PASSPHRASE_FILE) {
            true => "--passphrase and --passphrase-file name two passphrases: give one of them",
            false => {
                "--passphrase asks for a passphrase, and VDSTREAM_PASSPHRASE_FILE names one: unset it, or leave the option out"
            }
        }))
    }

    /// Adds them to `options`.
    pub(crate) async fn add_to(&self, mut options: BackupOptions) -> Result<BackupOptions> {
        self.check()?;
        let mut recipients = Recipients::new();
        for key in &self.recipient {
            recipients.add(key).map_err(|error| error.context("cannot use a --recipient"))?;
        }
        for path in &self.recipients_file {
            let file = read(path, format!("the recipients file {}", path.display())).await?;
            let text = std::str::from_utf8(&file).map_err(|_| invalid("not a text file"));
            let added = text.and_then(|text| recipients.add_lines(text));
            added.map_err(|error| error.context(format!("cannot use the recipients file {}", path.display())))?;
        }
        if !recipients.is_empty() {
            options = options.recipients(recipients);
        }
        let passphrase = match &self.passphrase_file {
            Some(path) => Some(passphrase_of(path).await?),
            None if self.passphrase => Some(ask_twice().await?),
            None => None,
        };
        Ok(match passphrase {
            Some(passphrase) => options.passphrase(passphrase),
            None => options,
        })
    }
}

impl Keys {
    /// What opens `manifest`'s backup; nothing if it is not encrypted. Asks for a passphrase where one is needed.
    pub(crate) async fn open(&self, store: &Store, manifest: &Manifest) -> Result<Option<Identities>> {
        let Some(encryption) = &manifest.encryption else { return Ok(None) };
        let given = match &self.passphrase_file {
            Some(path) => Some(passphrase_of(path).await?),
            None => None,
        };
        let mut identities = Identities::new();
        // The passphrase that was given is the backup's, or that of identity files: what it opens tells.
        let (mut opens_a_file, mut refused) = (false, None);
        for path in &self.identity {
            let file = read(path, format!("the identity file {}", path.display())).await?;
            let is_locked = Identities::needs_passphrase(&file);
            let passphrase = match &given {
                Some(passphrase) => Some(passphrase.clone()),
                None if is_locked => Some(ask(&format!("Passphrase of {}: ", path.display())).await?),
                None => None,
            };
            let added = blocking(move || {
                let mut added = Identities::new();
                added.add_file(&file, passphrase.as_ref()).map(|()| added)
            });
            let cannot = || format!("cannot use the identity file {}", path.display());
            match added.await.map_err(|error| error.context(cannot())) {
                Ok(added) => {
                    opens_a_file |= is_locked;
                    identities.extend(&added);
                }
                Err(error) if error.kind() == ErrorKind::Locked && encryption.identity.is_some() && given.is_some() => {
                    refused = refused.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        let passphrase = match given {
            _ if encryption.identity.is_none() => None,
            None if self.identity.is_empty() => Some(ask(&format!("Passphrase of backup {}: ", manifest.id)).await?),
            given => given,
        };
        let Some(passphrase) = passphrase else { return Ok(Some(identities)) };
        match unlock(store, manifest, &passphrase).await {
            Ok(key) => identities.extend(&key),
            Err(error) if error.kind() == ErrorKind::Locked && identities.is_empty() => {
                return Err(refused.unwrap_or(error));
            }
            // It was the passphrase of an identity file.
            Err(error) if error.kind() == ErrorKind::Locked && opens_a_file => {}
            // An identity may open the backup all the same. If none does, both were wrong, and both are told.
            Err(error) if error.kind() == ErrorKind::Locked => output::note(&refused.unwrap_or(error).report()),
            Err(error) if error.kind() == ErrorKind::Corrupt && !identities.is_empty() => output::note(&error.report()),
            Err(error) => return Err(error),
        }
        Ok(Some(identities))
    }
}

/// Whether an option has its files from the command line, and not from its variable, which has one and counts if there are none.
fn is_typed(files: &[PathBuf], variable: &str) -> bool {
    match files {
        [] => false,
        [file] => args::is_typed(file, variable, |text| Some(text.into())),
        _ => true,
    }
}

async fn passphrase_of(path: &Path) -> Result<Passphrase> {
    // What is no file may be the passphrase itself, and is not to be repeated.
    let file = read(path, format!("the file that --passphrase-file or {PASSPHRASE_FILE} names")).await?;
    let text = std::str::from_utf8(&file).map_err(|_| invalid("it is not text"));
    let passphrase = text.and_then(Passphrase::new);
    passphrase.map_err(|error| error.context(format!("cannot use the passphrase file {}", path.display())))
}

/// Reads a small file into memory that is zeroed afterwards. `what` is it in messages.
async fn read(path: &Path, what: String) -> Result<Zeroizing<Vec<u8>>> {
    let text = path.as_os_str().to_string_lossy();
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") || text.contains("-----BEGIN") {
        // Not to be repeated in a message.
        return Err(invalid(
            "a private key was given where a file is expected: arguments are visible to everyone, so it is not secret any more",
        ));
    }
    let path = path.to_owned();
    blocking(move || {
        let failed = |error: std::io::Error| Error::from(error).context(format!("cannot read {what}"));
        // As large as it can get, so that no copy is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 << 20));
        let file = File::open(&path).map_err(failed)?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    })
    .await
}

async fn ask_twice() -> Result<Passphrase> {
    let first = ask("New passphrase: ").await?;
    if ask("The same again: ").await? == first {
        return Ok(first);
    }
    Err(invalid("the two passphrases differ"))
}

/// Asks at the terminal, without echo.
async fn ask(prompt: &str) -> Result<Passphrase> {
    let tty = File::options().read(true).write(true).open("/dev/tty");
    let tty = tty.map_err(|error| {
        Error::new(
            ErrorKind::Locked,
            "a passphrase is needed, and there is no terminal to ask at: use --passphrase-file",
        )
        .with_source(error)
    })?;
    let failed = |error: std::io::Error| Error::from(error).context("cannot ask for the passphrase");
    let silence = Silence::new(tty.try_clone().map_err(failed)?).map_err(failed)?;
    (&tty).write_all(prompt.as_bytes()).map_err(failed)?;
    let line = blocking(move || line(&tty).map_err(failed)).await;
    // Also when this future is dropped because of a signal.
    drop(silence);
    let line = line?;
    Passphrase::new(std::str::from_utf8(&line).map_err(|_| invalid("the passphrase is not UTF-8"))?)
}

/// One line, without its end.
fn line(mut tty: &File) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(4096));
    let mut byte = [0];
    while line.len() < 4096 && tty.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(line)
}

/// A terminal without echo, until this is dropped.
struct Silence {
    tty: File,
    before: Termios,
}

impl Silence {
    fn new(tty: File) -> std::io::Result<Self> {
        let before = tcgetattr(&tty)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&tty, OptionalActions::Flush, &silent)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(&self.tty, OptionalActions::Now, &self.before);
        let _ = self.tty.write_all(b"\n");
    }
}

/// Runs what may wait beside the tasks of the runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "a terminal may never answer, and the end of the tool does not wait for it"
)]
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Internal, "reading a key panicked").with_source(error))?
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// What to say of a command line that is wrong in place of what `error` says, which may repeat a passphrase that was typed behind
/// `--passphrase`. `arguments` are those of the command line.
pub(crate) fn discreet(error: &clap::Error, arguments: impl Iterator<Item = OsString>) -> Option<&'static str> {
    use clap::error::ErrorKind as Kind;

    let is_passphrase = |argument: &OsString| {
        let name = argument.as_encoded_bytes().strip_prefix(b"--passphrase");
        name.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
    };
    // The others name arguments that exist, and nothing that was typed.
    let repeats = matches!(
        error.kind(),
        Kind::InvalidSubcommand
            | Kind::InvalidValue
            | Kind::TooManyValues
            | Kind::UnknownArgument
            | Kind::ValueValidation
    );
    // Behind `--` are the arguments of a program.
    let mut arguments = arguments.take_while(|argument| argument != "--");
    (repeats && arguments.any(|argument| is_passphrase(&argument))).then_some(
        "an argument is wrong, and is not repeated here, because it may be a passphrase: --passphrase takes no value.\n\
         A passphrase is asked for at the terminal, or read from the file that --passphrase-file names. What is typed as an\n\
         argument can be seen by everyone on this machine.",
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn what_is_typed_behind_passphrase_is_never_repeated() {
        let told = |arguments: &[&str]| {
            let arguments = || ["vdstream"].iter().chain(arguments).map(OsString::from);
            let error = Cli::try_parse_from(arguments()).unwrap_err();
            discreet(&error, arguments().skip(1)).map_or_else(|| error.to_string(), str::to_owned)
        };
        for arguments in [
            &["backup", "/a", "--passphrase", "hunter2", "--", "cmd"][..],
            &["backup", "/a", "--passphrase", "hunter2"],
            &["backup", "/a", "--passphrase=hunter2", "--", "cmd"],
            &["backup", "--passphrase", "correct", "hunter2", "/a"],
            &["restore", "/a", "latest", "--passphrase", "hunter2"],
            &["restore", "/a", "latest", "x", "--passphrase=hunter2"],
            &["restore", "/a", "--passphrase", "latest", "hunter2"],
            &["--passphrase=hunter2", "backup", "/a"],
            &["--passphrase", "hunter2", "backup", "/a"],
        ] {
            let told = told(arguments);
            assert!(!told.contains("hunter2") && told.contains("--passphrase takes no value"), "{arguments:?}: {told}");
        }
        // What has nothing to do with a passphrase of ours is told as it is.
        for arguments in [
            &["backup", "/a", "--levl", "3"][..],
            &["backup", "/a", "--passphrase-file", "x", "--levl", "3"],
            &["backup", "/a", "--levl", "3", "--", "mysqldump", "--passphrase", "x"],
        ] {
            assert!(told(arguments).contains("--levl"), "{arguments:?}");
        }
        assert!(told(&["backup", "--passphrase", "--help"]).contains("Usage: "));
        assert!(told(&["backup", "--passphrase", "--", "cmd"]).contains("<URL>"), "what is missing was not typed");
    }
}
