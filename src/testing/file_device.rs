//! A client that keeps its media in files: the reference for every mode of the interface.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::vdi::client::{Command, Completion, Handler};
use crate::vdi::{CommandCode, CompletionCode, Configuration, Features};

/// Carries out the commands of one device on files of a directory: one file per medium, and one for its file marks.
///
/// It works as the agreed features say: pipe, disk or tape, removable or not. It blocks on the disk, which is fine in tests.
#[derive(Debug)]
pub struct FileDevice {
    directory: PathBuf,
    name: String,
    features: Features,
    block_size: u64,
    warning_size: u64,
    capacity: Option<u64>,
    number: u32,
    medium: Medium,
    /// What snapshots are taken of.
    volume: Option<PathBuf>,
}

/// One medium: bytes in a file, and marks between them.
#[derive(Debug)]
struct Medium {
    file: File,
    marks_path: PathBuf,
    /// How many bytes precede each mark, in order.
    marks: Vec<u64>,
    /// Bytes and marks before the current position.
    offset: u64,
    passed: usize,
    /// Where the last write ended.
    written: Option<u64>,
}

/// `ERROR_BEGINNING_OF_MEDIA`: moved backwards to the start.
const BEGINNING_OF_MEDIA: CompletionCode = CompletionCode::Other(1102);

impl FileDevice {
    /// Opens or creates the first medium of the device `name` in `directory`. A medium takes `capacity` bytes, if limited.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened.
    pub fn open(
        directory: &Path,
        name: &str,
        configuration: &Configuration,
        capacity: Option<u64>,
    ) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            name: name.to_owned(),
            features: configuration.features,
            block_size: u64::from(configuration.block_size),
            warning_size: u64::from(configuration.eom_warning_size),
            capacity,
            number: 0,
            medium: Medium::open(directory, name, 0)?,
            volume: None,
        })
    }

    /// The same with a file that stands for the volume with the database: `Snapshot` keeps a copy of it, and `MountSnapshot`
    /// puts the copy in its place. Without one, snapshots are refused with `OperationAborted`.
    #[must_use]
    pub fn with_volume(self, volume: &Path) -> Self {
        Self { volume: Some(volume.to_owned()), ..self }
    }

    /// The file of a medium, counted from 0.
    pub fn medium_path(&self, number: u32) -> PathBuf {
        medium_path(&self.directory, &self.name, number)
    }

    fn is(&self, feature: Features) -> bool {
        self.features.contains(feature)
    }

    fn run(&mut self, command: &mut Command) -> io::Result<Option<Completion>> {
        let completion = match command.code() {
            CommandCode::Read => self.read(command)?,
            CommandCode::Write => self.write(command)?,
            CommandCode::ClearError => Completion::success(),
            CommandCode::PrepareToFreeze if self.is(Features::SNAPSHOT_PREPARE) => Completion::success(),
            CommandCode::Snapshot | CommandCode::MountSnapshot => self.snapshot(command.code())?,
            CommandCode::Flush | CommandCode::Complete => {
                // On a disk a flush also fixes the end of the file: where the last write ended, wherever was read since.
                if command.code() == CommandCode::Flush
                    && self.is(Features::RANDOM_ACCESS)
                    && let Some(end) = self.medium.written
                {
                    self.medium.file.set_len(end)?;
                }
                self.medium.sync()?;
                Completion::success()
            }
            CommandCode::Rewind if self.is(Features::REWIND) => {
                (self.medium.offset, self.medium.passed) = (0, 0);
                Completion::success()
            }
            CommandCode::WriteMark if self.is(Features::FILE_MARKS) => {
                self.medium.cut()?;
                self.medium.marks.push(self.medium.offset);
                self.medium.passed += 1;
                Completion::success()
            }
            CommandCode::SkipMarks if self.is(Features::FILE_MARKS) => self.medium.skip_marks(command.count())?,
            CommandCode::SkipBlocks if self.is(Features::SKIP_BLOCKS) => {
                self.medium.skip_blocks(command.count(), self.block_size)?
            }
            CommandCode::Load if self.is(Features::REMOVABLE) => self.load()?,
            CommandCode::GetPosition if self.is(Features::POSITION) || self.is(Features::RANDOM_ACCESS) => {
                Completion::success().at(self.medium.address())
            }
            CommandCode::SetPosition if self.is(Features::RANDOM_ACCESS) => {
                let base = match command.whence() {
                    0 => 0,
                    1 => self.medium.offset,
                    2 => self.medium.len()?,
                    _ => return Ok(Some(Completion::failed(CompletionCode::InvalidParameter))),
                };
                self.medium.offset = base.wrapping_add(command.position());
                Completion::success().at(self.medium.offset)
            }
            CommandCode::SetPosition if self.is(Features::POSITION) => {
                let code = self.medium.set_address(command.position())?;
                Completion::failed(code).at(self.medium.address())
            }
            CommandCode::Discard if self.is(Features::DISCARD) => {
                (self.medium.offset, self.medium.passed) = (0, 0);
                self.medium.cut()?;
                Completion::success()
            }
            _ => return Ok(None),
        };
        Ok(Some(completion))
    }

    /// Takes a snapshot, or brings it back. What was written before it describes it, and must be durable with it.
    fn snapshot(&mut self, code: CommandCode) -> io::Result<Completion> {
        let Some(volume) = &self.volume else {
            return Ok(Completion::failed(CompletionCode::OperationAborted));
        };
        let copy = self.directory.join(format!("{}.snapshot", self.name));
        let (from, to) = if code == CommandCode::Snapshot { (volume, &copy) } else { (&copy, volume) };
        std::fs::copy(from, to)?;
        File::open(to)?.sync_all()?;
        self.medium.sync()?;
        Ok(Completion::success())
    }

    fn read(&mut self, command: &mut Command) -> io::Result<Completion> {
        if self.is(Features::RANDOM_ACCESS) {
            self.medium.offset = command.position();
        }
        let wanted = command.size() as u64;
        let until_mark = self.medium.marks.get(self.medium.passed).map(|mark| mark - self.medium.offset);
        let limit = until_mark.map_or(wanted, |distance| distance.min(wanted));
        let mut count = 0;
        self.medium.file.seek(SeekFrom::Start(self.medium.offset))?;
        while (count as u64) < limit {
            let end = usize::try_from(limit).map_err(io::Error::other)?;
            match self.medium.file.read(&mut command.data_mut()[count..end])? {
                0 => break,
                read => count += read,
            }
        }
        self.medium.offset += count as u64;
        let code = if count == command.size() {
            CompletionCode::Success
        } else if until_mark.is_some() {
            self.medium.passed += 1;
            CompletionCode::FilemarkDetected
        } else if self.is(Features::REMOVABLE) {
            CompletionCode::NoDataDetected
        } else {
            CompletionCode::HandleEof
        };
        Ok(Completion { code, bytes_transferred: count, position: 0 })
    }

    fn write(&mut self, command: &Command) -> io::Result<Completion> {
        if self.is(Features::RANDOM_ACCESS) {
            self.medium.offset = command.position();
        } else {
            self.medium.cut()?;
        }
        let room = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.medium.offset));
        let count = usize::try_from(room).unwrap_or(usize::MAX).min(command.size());
        self.medium.file.seek(SeekFrom::Start(self.medium.offset))?;
        self.medium.file.write_all(&command.data()[..count])?;
        self.medium.offset += count as u64;
        self.medium.written = Some(self.medium.offset);
        let is_removable = self.is(Features::REMOVABLE);
        let code = if count < command.size() {
            if is_removable { CompletionCode::EomOverflow } else { CompletionCode::DiskFull }
        } else if is_removable && room - count as u64 <= self.warning_size && self.capacity.is_some() {
            CompletionCode::EndOfMedia
        } else {
            CompletionCode::Success
        };
        Ok(Completion { code, bytes_transferred: count, position: 0 })
    }

    /// The next medium; when media are only read, it must be there.
    fn load(&mut self) -> io::Result<Completion> {
        self.medium.sync()?;
        if !self.is(Features::WRITE_MEDIA) && !self.medium_path(self.number + 1).exists() {
            return Ok(Completion::failed(CompletionCode::NoDataDetected));
        }
        self.number += 1;
        self.medium = Medium::open(&self.directory, &self.name, self.number)?;
        Ok(Completion::success())
    }
}

#[async_trait]
impl Handler for FileDevice {
    async fn carry_out(&mut self, command: &mut Command) -> Option<Completion> {
        self.run(command).unwrap_or_else(|error| {
            tracing::error!(%error, command = %command.code(), "a file device failed");
            Some(Completion::failed(CompletionCode::IoDevice))
        })
    }
}

impl Medium {
    fn open(directory: &Path, name: &str, number: u32) -> io::Result<Self> {
        let path = medium_path(directory, name, number);
        let marks_path = path.with_added_extension("marks");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let marks = match std::fs::read_to_string(&marks_path) {
            Ok(text) => text.lines().map(str::parse).collect::<Result<_, _>>().map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { file, marks_path, marks, offset: 0, passed: 0, written: None })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.marks.is_empty() && !self.marks_path.exists() {
            return Ok(());
        }
        let text: String = self.marks.iter().map(|mark| format!("{mark}\n")).collect();
        let mut file = File::create(&self.marks_path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// Writing in the middle of a sequential medium loses what comes after.
    fn cut(&mut self) -> io::Result<()> {
        self.marks.truncate(self.passed);
        if self.len()? > self.offset {
            self.file.set_len(self.offset)?;
        }
        Ok(())
    }

    /// Every byte and every mark is one step of the block address.
    fn address(&self) -> u64 {
        self.offset + self.passed as u64
    }

    /// An address that `address` never gave is beyond the end.
    fn set_address(&mut self, address: u64) -> io::Result<CompletionCode> {
        let len = self.len()?;
        if address > len + self.marks.len() as u64 {
            (self.offset, self.passed) = (len, self.marks.len());
            return Ok(CompletionCode::NoDataDetected);
        }
        self.passed = self.marks.iter().zip(0..).take_while(|(mark, index)| *mark + index < address).count();
        self.offset = address - self.passed as u64;
        Ok(CompletionCode::Success)
    }

    fn skip_marks(&mut self, count: i32) -> io::Result<Completion> {
        let steps = count.unsigned_abs() as usize;
        if count >= 0 {
            let Some(target) = (self.passed + steps).checked_sub(1) else { return Ok(Completion::success()) };
            if steps == 0 {
                return Ok(Completion::success());
            }
            let Some(mark) = self.marks.get(target) else {
                (self.offset, self.passed) = (self.len()?, self.marks.len());
                return Ok(Completion::failed(CompletionCode::NoDataDetected));
            };
            (self.offset, self.passed) = (*mark, target + 1);
        } else {
            let Some(target) = self.passed.checked_sub(steps) else {
                (self.offset, self.passed) = (0, 0);
                return Ok(Completion::failed(BEGINNING_OF_MEDIA));
            };
            (self.offset, self.passed) = (self.marks[target], target);
        }
        Ok(Completion::success())
    }

    fn skip_blocks(&mut self, count: i32, block_size: u64) -> io::Result<Completion> {
        let distance = u64::from(count.unsigned_abs()) * block_size;
        let code = if count >= 0 {
            let mark = self.marks.get(self.passed).copied();
            let end = mark.unwrap_or(self.len()?);
            if self.offset + distance <= end {
                self.offset += distance;
                CompletionCode::Success
            } else {
                self.offset = end;
                self.passed += usize::from(mark.is_some());
                if mark.is_some() { CompletionCode::FilemarkDetected } else { CompletionCode::NoDataDetected }
            }
        } else {
            let mark = self.passed.checked_sub(1).map(|index| self.marks[index]);
            let start = mark.unwrap_or(0);
            if self.offset - start >= distance {
                self.offset -= distance;
                CompletionCode::Success
            } else {
                self.offset = start;
                self.passed -= usize::from(mark.is_some());
                if mark.is_some() { CompletionCode::FilemarkDetected } else { BEGINNING_OF_MEDIA }
            }
        };
        Ok(Completion::failed(code))
    }
}

fn medium_path(directory: &Path, name: &str, number: u32) -> PathBuf {
    directory.join(format!("{name}.{number}"))
}
