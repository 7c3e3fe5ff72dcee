//! What can be done to a device set, decoded from any bytes.

use vdstream::vdi::{CommandCode, CompletionCode};

/// The set that a list works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) devices: usize,
    pub(crate) depth: usize,
    pub(crate) is_timed: bool,
    pub(crate) asks_complete: bool,
    pub(crate) asks_prepare: bool,
    pub(crate) mode: Mode,
}

/// What the client says that it is. The set must work the same with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pipe,
    Disk,
    Tape,
    RemovablePipe,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Create,
    Open,
    Begin,
    Request(u64),
    End,
    /// Fetches the configuration: with a zero timeout, or as somebody who waits.
    Fetch {
        waits: bool,
    },
    OpenServerDevice,
    /// By its number; one number more than there are devices is an unknown name.
    OpenClientDevice(usize),
    CreateAgent,
    PollAgent,
    DropAgent,
    Allocate,
    Free,
    Send {
        device: usize,
        code: CommandCode,
        size: usize,
        is_short: bool,
        calls_back: bool,
    },
    DropFuture(usize),
    /// Waits for room in a queue.
    Room(usize),
    /// Sends a flush as soon as there is room: starts to wait, or looks again. One such sender per device.
    SendWhenReady(usize),
    DropSender(usize),
    /// A second client joins, opens a device as [`Op::OpenClientDevice`] does, and leaves.
    Join,
    OpenSecondaryDevice(usize),
    CloseSecondary,
    DropSecondary,
    /// Lends the buffer of a command that a client holds.
    Lend(usize),
    /// Maps a buffer that was lent, as one of the clients.
    Map {
        handle: usize,
        by_secondary: bool,
    },
    Unmap(usize),
    Take(usize),
    Complete {
        command: usize,
        how: How,
    },
    CloseDevice(usize),
    AbortByClient,
    AbortByServer,
    CloseClient,
    CloseServer,
    PollClose,
    DropClient,
    DropServer,
    DropClientDevice(usize),
    DropServerDevice(usize),
    Tick {
        seconds: u64,
    },
}

/// How the client ends a command that it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    With {
        code: CompletionCode,
        bytes: usize,
        position: u64,
    },
    /// With an error that says why.
    Fail,
    Drop,
}

/// A list of operations, and the set to run it on.
#[derive(Debug, Clone)]
pub(crate) struct List {
    pub(crate) shape: Shape,
    pub(crate) ops: Vec<Op>,
}

impl List {
    /// Decodes any bytes. The head gives the shape and how much of the usual beginning comes first, then three bytes are one
    /// operation. A list that had to find its way into an active set by chance would rarely get there.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (head, body) = bytes.split_at(bytes.len().min(2));
        let byte = |index: usize| head.get(index).copied().map_or(0, usize::from);
        let shape = Shape {
            devices: byte(0) % 3 + 1,
            depth: byte(0) / 3 % 3 + 1,
            is_timed: byte(0) & 0x40 != 0,
            asks_complete: byte(0) & 0x80 != 0,
            asks_prepare: byte(1) & 0x80 != 0,
            mode: [Mode::Pipe, Mode::Disk, Mode::Tape, Mode::RemovablePipe][byte(0) / 9 % 4],
        };
        let mut ops = beginning(shape, byte(1) & 0x3f);
        for chunk in body.chunks_exact(3) {
            match Op::decode(chunk[0], chunk[1], chunk[2], shape) {
                // The next set comes with its beginning as well.
                Op::Create => ops.extend(beginning(shape, usize::from(chunk[1] & 0x3f))),
                // Nor would it often find a command to lend, and one that is lent to map.
                Op::Lend(_) => ops.extend(loan(shape, usize::from(chunk[1]), usize::from(chunk[2]))),
                op => ops.push(op),
            }
        }
        Self { shape, ops }
    }
}

/// The first `count` operations of a set that becomes active; most counts are all of them.
fn beginning(shape: Shape, count: usize) -> Vec<Op> {
    let configuration = [Op::Create, Op::Open, Op::Begin, Op::Request(12), Op::End, Op::Fetch { waits: false }];
    // Every third set has a second client, with the last device.
    let second = shape.depth == 2;
    let open = move |device| {
        let is_seconds = second && device + 1 == shape.devices;
        if is_seconds { Op::OpenSecondaryDevice(device) } else { Op::OpenClientDevice(device) }
    };
    let devices = (0..shape.devices).flat_map(move |device| [Op::OpenServerDevice, open(device)]);
    let devices = second.then_some(Op::Join).into_iter().chain(devices);
    let all = configuration.into_iter().chain(devices).chain([Op::CreateAgent, Op::PollAgent]);
    all.take(count.max(1)).collect()
}

/// A command is sent, taken, lent and mapped, and one of the things happens that can happen to a mapped buffer.
fn loan(shape: Shape, a: usize, b: usize) -> Vec<Op> {
    let device = a % shape.devices;
    let by_secondary = b > 127;
    let how = How::With { code: CompletionCode::Success, bytes: 512, position: 0 };
    let write = Op::Send { device, code: CommandCode::Write, size: 512, is_short: false, calls_back: a > 127 };
    let end = match a / 4 % 8 {
        0 | 5 => Vec::new(),
        1 => vec![Op::Unmap(0)],
        2 | 6 => vec![Op::Map { handle: 1, by_secondary: b.is_multiple_of(2) }, Op::Unmap(0)],
        3 => vec![Op::Complete { command: a, how }, Op::PollAgent, Op::Unmap(0)],
        4 => vec![Op::Unmap(0), Op::Complete { command: a, how }, Op::Map { handle: 4, by_secondary }],
        _ => vec![Op::CloseServer, Op::Unmap(0)],
    };
    let start = [write, Op::Take(device), Op::Lend(b), Op::Map { handle: 1, by_secondary }];
    start.into_iter().chain(end).collect()
}

impl Op {
    fn decode(kind: u8, first: u8, second: u8, shape: Shape) -> Self {
        let (a, b) = (usize::from(first), usize::from(second));
        let device = a % shape.devices;
        match kind {
            // What ends a set is rare: little is left to try after it.
            243.. if b % 4 != 0 => Self::PollAgent,
            0..60 => Self::Send {
                device,
                code: CODES[b % CODES.len()],
                size: [512, 512, 512, 100, 0, 1024][a / 4 % 6],
                is_short: b & 0x40 != 0,
                calls_back: b & 0x80 != 0,
            },
            60..70 => {
                Self::Send { device, code: CommandCode::ClearError, size: 0, is_short: false, calls_back: b > 127 }
            }
            70..115 => Self::Take(device),
            115..165 => Self::Complete { command: a, how: How::decode(b) },
            165..195 => Self::PollAgent,
            195..197 => Self::Room(device),
            197..199 => Self::DropFuture(a),
            199..201 => Self::Allocate,
            201..203 => Self::Free,
            203..208 => [Self::SendWhenReady(device), Self::DropSender(device)][usize::from(b % 6 == 0)],
            208..214 => match b % 16 {
                0 => Self::Join,
                1 | 2 => Self::OpenSecondaryDevice(a % (shape.devices + 1)),
                3 if b > 127 => Self::CloseSecondary,
                3 if b > 63 => Self::DropSecondary,
                3..10 => Self::Lend(a),
                10..13 => Self::Map { handle: a, by_secondary: b > 127 },
                _ => Self::Unmap(a),
            },
            214..219 => Self::CloseDevice(device),
            219..221 => Self::Tick { seconds: a as u64 % 25 },
            221..224 => Self::Create,
            224..226 => Self::Open,
            226..228 => Self::Begin,
            228..230 => Self::Request(a as u64 % 30),
            230..232 => Self::End,
            232..236 => Self::Fetch { waits: b > 127 },
            236..238 => Self::OpenServerDevice,
            238..240 => Self::OpenClientDevice(a % (shape.devices + 1)),
            240..243 => Self::CreateAgent,
            243 => Self::DropAgent,
            244 => Self::AbortByClient,
            245 => Self::AbortByServer,
            246 | 247 => Self::CloseClient,
            248 | 249 => Self::CloseServer,
            250 | 251 => Self::PollClose,
            252 => Self::DropClient,
            253 => Self::DropServer,
            254 => Self::DropClientDevice(device),
            255 => Self::DropServerDevice(device),
        }
    }
}

impl How {
    fn decode(byte: usize) -> Self {
        let with = |code, bytes| Self::With { code, bytes, position: byte as u64 };
        match byte % 16 {
            0..9 => with(CompletionCode::Success, [0, 100, 512][byte / 16 % 3]),
            9 => with(CompletionCode::Success, 513),
            10 => with(CompletionCode::EndOfMedia, 512),
            11 => with(CompletionCode::DiskFull, 100),
            12 => with(CompletionCode::Other(0), 100),
            13 => with(CompletionCode::Other(112), 0),
            14 => Self::Fail,
            _ => Self::Drop,
        }
    }
}

const CODES: [CommandCode; 21] = [
    CommandCode::Write,
    CommandCode::Write,
    CommandCode::Write,
    CommandCode::Write,
    CommandCode::Write,
    CommandCode::Read,
    CommandCode::Read,
    CommandCode::Read,
    CommandCode::Flush,
    CommandCode::Flush,
    CommandCode::Complete,
    CommandCode::Rewind,
    CommandCode::WriteMark,
    CommandCode::Load,
    CommandCode::GetPosition,
    CommandCode::SetPosition,
    CommandCode::Discard,
    CommandCode::Snapshot,
    CommandCode::MountSnapshot,
    CommandCode::PrepareToFreeze,
    CommandCode::Other(77),
];
