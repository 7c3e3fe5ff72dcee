//! What is asked of a device and how it ended, with the specification's numbers.

use std::fmt;

/// A command of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommandCode {
    /// `VDC_Read`: fill the buffer.
    Read,
    /// `VDC_Write`: take the buffer's bytes.
    Write,
    /// `VDC_ClearError`: recover from a failed command.
    ClearError,
    /// `VDC_Rewind`: go to the start of the medium.
    Rewind,
    /// `VDC_WriteMark`: write a file mark.
    WriteMark,
    /// `VDC_SkipMarks`: move over file marks.
    SkipMarks,
    /// `VDC_SkipBlocks`: move over blocks.
    SkipBlocks,
    /// `VDC_Load`: load the next medium.
    Load,
    /// `VDC_GetPosition`: report the position.
    GetPosition,
    /// `VDC_SetPosition`: move to a position.
    SetPosition,
    /// `VDC_Discard`: forget what was stored.
    Discard,
    /// `VDC_Flush`: make everything written so far durable.
    Flush,
    /// `VDC_Snapshot`: take the snapshot.
    Snapshot,
    /// `VDC_MountSnapshot`: put the snapshot's files in place.
    MountSnapshot,
    /// `VDC_PrepareToFreeze`: get ready for a snapshot.
    PrepareToFreeze,
    /// `VDC_FileInfoBegin`: named by the headers, described nowhere.
    FileInfoBegin,
    /// `VDC_FileInfoEnd`: named by the headers, described nowhere.
    FileInfoEnd,
    /// `VDC_GetError`: named by the headers, described nowhere.
    GetError,
    /// `VDC_Complete`: the true end of the server's data.
    Complete,
    /// A code that this version does not know.
    Other(u32),
}

impl CommandCode {
    /// The 19 commands of the specification, in the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::Read,
        Self::Write,
        Self::ClearError,
        Self::Rewind,
        Self::WriteMark,
        Self::SkipMarks,
        Self::SkipBlocks,
        Self::Load,
        Self::GetPosition,
        Self::SetPosition,
        Self::Discard,
        Self::Flush,
        Self::Snapshot,
        Self::MountSnapshot,
        Self::PrepareToFreeze,
        Self::FileInfoBegin,
        Self::FileInfoEnd,
        Self::GetError,
        Self::Complete,
    ];

    /// The number of the specification.
    pub const fn code(self) -> u32 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::ClearError => 3,
            Self::Rewind => 4,
            Self::WriteMark => 5,
            Self::SkipMarks => 6,
            Self::SkipBlocks => 7,
            Self::Load => 8,
            Self::GetPosition => 9,
            Self::SetPosition => 10,
            Self::Discard => 11,
            Self::Flush => 12,
            Self::Snapshot => 13,
            Self::MountSnapshot => 14,
            Self::PrepareToFreeze => 15,
            Self::FileInfoBegin => 16,
            Self::FileInfoEnd => 17,
            Self::GetError => 18,
            Self::Complete => 19,
            Self::Other(code) => code,
        }
    }

    /// The command with that number; an unknown one becomes [`CommandCode::Other`].
    pub fn from_code(code: u32) -> Self {
        Self::ALL.into_iter().find(|known| known.code() == code).unwrap_or(Self::Other(code))
    }

    /// True for the two commands that move data and need a buffer.
    pub const fn is_transfer(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

impl fmt::Display for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "command {code}"),
            known => write!(f, "{known:?}"),
        }
    }
}

/// How a command ended: a Win32 error number, zero being success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CompletionCode {
    /// `ERROR_SUCCESS`.
    #[default]
    Success,
    /// `ERROR_INVALID_HANDLE`: the device is not active.
    InvalidHandle,
    /// `ERROR_ARENA_TRASHED`: listed by the headers.
    ArenaTrashed,
    /// `ERROR_BAD_ENVIRONMENT`: used by clients in the field.
    BadEnvironment,
    /// `ERROR_HANDLE_EOF`: read, no more data.
    HandleEof,
    /// `ERROR_HANDLE_DISK_FULL`: listed by the headers.
    HandleDiskFull,
    /// `ERROR_NOT_SUPPORTED`: the client does not know the command.
    NotSupported,
    /// `ERROR_INVALID_PARAMETER`: the command itself is malformed. Not in the specification; a decision.
    InvalidParameter,
    /// `ERROR_DISK_FULL`: write, no space.
    DiskFull,
    /// `ERROR_OPERATION_ABORTED`: aborted; also refuses a snapshot.
    OperationAborted,
    /// `ERROR_END_OF_MEDIA`: write, the warning zone is reached.
    EndOfMedia,
    /// `ERROR_FILEMARK_DETECTED`: read met a file mark.
    FilemarkDetected,
    /// `ERROR_NO_DATA_DETECTED`: read, end of data.
    NoDataDetected,
    /// `ERROR_IO_DEVICE`: dropped or refused because the device is in error.
    IoDevice,
    /// `ERROR_EOM_OVERFLOW`: write, past the end of the medium.
    EomOverflow,
    /// `ERROR_NO_SYSTEM_RESOURCES`: the queue is full.
    NoSystemResources,
    /// Any other number.
    Other(u32),
}

impl CompletionCode {
    /// The codes that have a name, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Success,
        Self::InvalidHandle,
        Self::ArenaTrashed,
        Self::BadEnvironment,
        Self::HandleEof,
        Self::HandleDiskFull,
        Self::NotSupported,
        Self::InvalidParameter,
        Self::DiskFull,
        Self::OperationAborted,
        Self::EndOfMedia,
        Self::FilemarkDetected,
        Self::NoDataDetected,
        Self::IoDevice,
        Self::EomOverflow,
        Self::NoSystemResources,
    ];

    /// The Win32 number.
    pub const fn code(self) -> u32 {
        match self {
            Self::Success => 0,
            Self::InvalidHandle => 6,
            Self::ArenaTrashed => 7,
            Self::BadEnvironment => 10,
            Self::HandleEof => 38,
            Self::HandleDiskFull => 39,
            Self::NotSupported => 50,
            Self::InvalidParameter => 87,
            Self::DiskFull => 112,
            Self::OperationAborted => 995,
            Self::EndOfMedia => 1100,
            Self::FilemarkDetected => 1101,
            Self::NoDataDetected => 1104,
            Self::IoDevice => 1117,
            Self::EomOverflow => 1129,
            Self::NoSystemResources => 1450,
            Self::Other(code) => code,
        }
    }

    /// The code with that number; one without a name becomes [`CompletionCode::Other`].
    pub fn from_code(code: u32) -> Self {
        Self::ALL.into_iter().find(|known| known.code() == code).unwrap_or(Self::Other(code))
    }

    /// True for `ERROR_SUCCESS` only.
    pub const fn is_success(self) -> bool {
        self.code() == 0
    }
}

impl fmt::Display for CompletionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "error {code}"),
            known => write!(f, "{known:?} ({})", known.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_numbered_from_1_to_19() {
        for (command, number) in CommandCode::ALL.into_iter().zip(1..) {
            assert_eq!(command.code(), number);
            assert_eq!(CommandCode::from_code(number), command);
        }
        assert_eq!(CommandCode::from_code(0), CommandCode::Other(0));
        assert_eq!(CommandCode::from_code(20), CommandCode::Other(20));
    }

    #[test]
    fn completion_codes_are_the_win32_numbers() {
        let numbers: Vec<u32> = CompletionCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(numbers, [0, 6, 7, 10, 38, 39, 50, 87, 112, 995, 1100, 1101, 1104, 1117, 1129, 1450]);
        for code in CompletionCode::ALL {
            assert_eq!(CompletionCode::from_code(code.code()), code);
        }
        assert_eq!(CompletionCode::from_code(1), CompletionCode::Other(1));
        assert!(CompletionCode::Other(0).is_success());
    }
}
