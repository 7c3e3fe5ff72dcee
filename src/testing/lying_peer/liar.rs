//! The liar: what it says for how long, and what it makes of bytes.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::UnixStream;
use tokio_util::codec::Decoder as _;

use crate::error::Result;
use crate::shm::wire::{Choice, Codec, Completed, Message, Place, Reason, Sent, Wishes};
use crate::shm::{Attached, Control, Inbox, Received, Region, Socket};

/// Reads `bytes` as control messages, as they would come from a socket in pieces.
pub fn decode(bytes: &[u8]) {
    let piece = bytes.first().map_or(1, |first| usize::from(*first).max(1));
    let mut buffer = BytesMut::new();
    for chunk in bytes.chunks(piece) {
        buffer.extend_from_slice(chunk);
        loop {
            match Codec.decode(&mut buffer) {
                Ok(Some(_message)) => {}
                Ok(None) => break,
                Err(_refused) => return,
            }
        }
    }
}

/// The lying process.
pub(super) struct Liar<'a> {
    pub(super) socket: Arc<Socket>,
    inbox: Inbox,
    pub(super) region: Arc<Region>,
    control: Arc<Control>,
    /// What the other side shares with it.
    theirs: Vec<Region>,
    bytes: Bytes<'a>,
}

/// The file that goes with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    None,
    Region,
    Control,
}

impl<'a> Liar<'a> {
    pub(super) fn new(stream: UnixStream, bytes: &'a [u8]) -> Result<Self> {
        let region = Region::create(65_536).map_err(std::io::Error::other)?;
        let control = Control::create().map_err(std::io::Error::other)?;
        Ok(Self {
            socket: Socket::new(stream),
            inbox: Inbox::new(),
            region: Arc::new(region),
            control: Arc::new(control),
            theirs: Vec::new(),
            bytes: Bytes(bytes),
        })
    }

    /// Says the honest messages up to a point, and then lies; stays or goes.
    pub(super) async fn run(&mut self, honest: &[(Message, File)]) {
        let truths = usize::from(self.bytes.byte()) % (honest.len() + 1);
        for (message, file) in &honest[..truths] {
            self.say(message, *file).await;
        }
        while !self.bytes.0.is_empty() {
            let (message, file) = self.bytes.message();
            self.say(&message, file).await;
        }
        if truths.is_multiple_of(2) {
            // Says nothing more and keeps the connection: the other side must not wait for it.
            for _ in 0..64 {
                self.listen().await;
            }
        }
    }

    pub(super) async fn say(&mut self, message: &Message, file: File) {
        match file {
            File::None => self.socket.tell(message),
            File::Region => self.socket.tell_with(message, Attached::Region(Arc::clone(&self.region))),
            File::Control => self.socket.tell_with(message, Attached::Control(Arc::clone(&self.control))),
        }
        self.socket.flush();
        // It also writes to the memory that it shares, whoever owns it now.
        let noise = [self.bytes.byte(); 64];
        let place = usize::from(self.bytes.byte()) * 64;
        let written = self.region.write(place, &noise);
        debug_assert!(written.is_ok(), "the liar's own region");
        for region in &self.theirs {
            // What has no room there is no harm.
            let _written = region.write(place, &noise);
        }
        self.listen().await;
    }

    /// Reads what the other side says, takes the files that come with it, and lets it run.
    pub(super) async fn listen(&mut self) {
        while let Ok(Received::Bytes) = self.inbox.receive(&self.socket) {
            while let Ok(Some(message)) = self.inbox.next() {
                let len = match message {
                    Message::Welcome(_) => Control::BYTES as u64,
                    Message::Grown { len } => len,
                    _ => continue,
                };
                self.theirs.extend(self.inbox.file().and_then(|file| Region::adopt(file, len)).ok());
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes choices from bytes; zero when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Small numbers mostly, and the edges of each width.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..200 => u64::from(byte % 8),
            200..220 => 512 * u64::from(self.byte()),
            220..230 => 65_536 - u64::from(self.byte() % 4),
            230..240 => u64::from(u32::MAX) - u64::from(self.byte() % 2),
            _ => u64::MAX - u64::from(self.byte() % 2),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any value will do")]
    fn small(&mut self) -> u32 {
        self.number() as u32
    }

    fn place(&mut self) -> Place {
        Place { region: self.small(), offset: self.number(), len: self.small() }
    }

    fn reason(&mut self) -> Reason {
        let layers = (0..self.byte() % 4).map(|_| "lie ".repeat(usize::from(self.byte()))).collect();
        Reason { kind: "denied".to_owned(), layers }
    }

    fn message(&mut self) -> (Message, File) {
        let device = self.byte() % 4;
        let file = match self.byte() {
            0..12 => File::Region,
            12..24 => File::Control,
            _ => File::None,
        };
        let message = match self.byte() % 20 {
            0 => Message::Hello { is_server: device == 0 },
            1 => Message::Welcome(Wishes {
                device_count: self.small(),
                features: self.small(),
                prefix_zone_size: self.small(),
                alignment: self.small(),
                soft_file_mark_block_size: self.small(),
                eom_warning_size: self.small(),
                server_timeout_millis: self.small(),
            }),
            2 => Message::Refused { status: self.small(), reason: self.reason() },
            3 => Message::Joined,
            4 => Message::Begun(Choice {
                features: self.small(),
                alignment: self.small(),
                block_size: self.small(),
                max_transfer_size: self.small(),
                max_io_depth: self.small(),
                device_names: (0..self.byte() % 3).map(|_| "x".repeat(usize::from(self.byte()))).collect(),
            }),
            5 => Message::Grown { len: self.number() },
            6 => return (Message::Grown { len: 65_536 }, File::Region),
            7 => Message::Ended { area_size: self.small() },
            8 => Message::ServerOpened { device },
            9..12 => Message::Sent(Sent {
                device,
                is_short: self.byte() > 127,
                epoch: self.small(),
                id: self.number(),
                code: u32::from(self.byte() % 24),
                size: self.small(),
                position: self.number(),
                place: (self.byte() < 200).then(|| self.place()),
            }),
            12 => Message::ServerClosed { device },
            13 => Message::ClientOpened { device },
            14 => Message::Taken { device, id: self.number() },
            15 => Message::SawClose { device },
            16 => Message::Completed(Completed {
                device,
                id: self.number(),
                code: self.small(),
                bytes: self.small(),
                position: self.number(),
                has_buffer: self.byte() > 50,
                reason: (self.byte() > 200).then(|| self.reason()),
            }),
            17 => Message::Returned(self.place()),
            18 => Message::Aborted(self.reason()),
            _ => Message::Left { is_server: device == 0 },
        };
        (message, file)
    }
}

/// What an honest server fixes.
pub(super) fn choice() -> Choice {
    Choice {
        features: 0x5_0000,
        alignment: 0,
        block_size: 512,
        max_transfer_size: 65_536,
        max_io_depth: 4,
        device_names: Vec::new(),
    }
}
