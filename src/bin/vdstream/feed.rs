//! What feeds a backup: its sources, and the program that they may come from.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::io::AsyncWriteExt as _;
use vdstream::backup::{Backup, MAX_STRIPES, Producer};
use vdstream::stream::DeviceWriter;
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::producer::{self, Blocking, Bytes, Source};
use crate::program::Program;
use crate::same;

/// What feeds the backup.
pub(crate) struct Feed {
    sources: Vec<Source>,
    program: Option<Program>,
    /// How to call the producer in the manifest.
    name: String,
    exit_status: Option<i32>,
}

impl Feed {
    pub(crate) async fn open(args: &args::Backup) -> Result<Self> {
        let (sources, name) = if !args.producer.is_empty() {
            // Only the program's name: arguments may hold secrets.
            (Vec::new(), args.producer[0].to_string_lossy().into_owned())
        } else if args.stdin.is_some() {
            (vec![producer::stdin().await?], "stdin".to_owned())
        } else if !args.input.is_empty() {
            check_inputs(&args.input).await?;
            let names: Vec<String> = args.input.iter().map(|path| path.display().to_string()).collect();
            (producer::inputs(&args.input).await?, names.join(" "))
        } else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "nothing to back up: give `-` for stdin, `--input PATH`, or a program after `--`",
            ));
        };
        Ok(Self { sources, program: None, name, exit_status: None })
    }

    pub(crate) fn start(&mut self, args: &args::Backup) -> Result<()> {
        let (program, stdout) = Program::producer(&args.producer)?;
        self.sources.push(Source::new(format!("`{}`", self.name), Bytes::Stream(Box::pin(stdout))));
        self.program = Some(program);
        Ok(())
    }

    /// For a resumed backup: files go on behind what is stored of their stripes, everything else starts again.
    pub(crate) async fn rewind(&self, backup: &mut Backup) -> Result<()> {
        for ((stripe, source), offset) in (0..).zip(&self.sources).zip(backup.offsets()) {
            if !source.seek(offset).await? {
                backup.replay(stripe)?;
            }
        }
        if self.sources.is_empty() {
            // A program, which starts again.
            backup.replay(0)?;
        }
        Ok(())
    }

    /// Number of stripes.
    pub(crate) fn stripes(&self) -> usize {
        self.sources.len().max(1)
    }

    /// Moves every source into its stripe to the end. The end of a program's output is not success: its exit status is, and a
    /// bad one ends the backup at once, whoever else may still hold the output.
    ///
    /// The writers are the caller's, because dropping one is a failure of its own.
    pub(crate) async fn run(&mut self, writers: &mut [DeviceWriter]) -> Result<()> {
        let stripes = writers.iter_mut().zip(&mut self.sources);
        let fed = try_join_all(stripes.map(|(writer, source)| feed(writer, source)));
        match &mut self.program {
            Some(program) => {
                let (_fed, status) = tokio::try_join!(fed, program.success())?;
                self.exit_status = status.code();
            }
            None => drop(fed.await?),
        }
        try_join_all(writers.iter_mut().map(|writer| writer.shutdown())).await?;
        Ok(())
    }

    pub(crate) fn producer(&self) -> Option<Producer> {
        let producer = Producer::new(self.name.as_str());
        Some(match self.exit_status {
            Some(status) => producer.exit_status(status),
            None => producer,
        })
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(program) = &mut self.program {
            program.stop().await;
        }
    }
}

/// Everything of `source` into `writer`, which is left open.
pub(crate) async fn feed(writer: &mut DeviceWriter, source: &mut Source) -> Result<()> {
    let fed = match &mut source.bytes {
        Bytes::Stream(stream) => writer.write_from(stream).await.map(drop),
        Bytes::File(file) => feed_file(writer, file).await,
    };
    match fed {
        Ok(()) => Ok(()),
        Err(error) => {
            let is_ours = error.get_ref().is_some_and(|inner| inner.is::<Error>());
            let error = Error::from(error);
            Err(if is_ours { error } else { error.context(format!("cannot read {}", source.name)) })
        }
    }
}

/// Reads a file straight into the device's buffers, on a thread that may block.
async fn feed_file(writer: &mut DeviceWriter, file: &Arc<Blocking>) -> io::Result<()> {
    loop {
        let mut buffer = writer.next_buffer().await?;
        let file = Arc::clone(file);
        #[expect(clippy::disallowed_methods, reason = "nothing is left behind: the process ends with the command")]
        let read = tokio::task::spawn_blocking(move || {
            let count = file.read_full(&mut buffer)?;
            Ok::<_, io::Error>((buffer, count))
        });
        let (buffer, count) = read.await.map_err(io::Error::other)??;
        let is_end = count < buffer.len();
        writer.write_buffer(buffer, count).await?;
        if is_end {
            return Ok(());
        }
    }
}

/// Before anything is opened: opening a FIFO waits for its writer, and that would be in vain.
async fn check_inputs(paths: &[PathBuf]) -> Result<()> {
    let (count, most) = (paths.len(), usize::from(MAX_STRIPES));
    if count > most {
        return Err(Error::new(ErrorKind::Invalid, format!("{count} inputs, but a backup has at most {most} stripes")));
    }
    same::refuse_twice("input", paths).await
}
