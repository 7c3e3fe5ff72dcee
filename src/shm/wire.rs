//! The control messages: fixed-width little-endian fields behind a length, checked before anything is kept.
//!
//! ```text
//! u32 length of the rest | u8 type | fields
//! ```
//!
//! Text is a `u16` length and UTF-8. The first message of each side carries a magic number and the version of all of them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::ShmError;

/// Where a buffer's data is: a range of one of the set's regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The number of the region, in the order in which they were announced.
    pub(crate) region: u32,
    /// Where the data starts; the prefix zone lies before it.
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// An error as it crosses a process border: its kind by name, and the message of each layer, outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) kind: String,
    pub(crate) layers: Vec<String>,
}

/// What a client asks for, as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) device_count: u32,
    pub(crate) features: u32,
    pub(crate) prefix_zone_size: u32,
    pub(crate) alignment: u32,
    pub(crate) soft_file_mark_block_size: u32,
    pub(crate) eom_warning_size: u32,
    pub(crate) server_timeout_millis: u32,
}

/// What a server fixes, as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) features: u32,
    pub(crate) alignment: u32,
    pub(crate) block_size: u32,
    pub(crate) max_transfer_size: u32,
    pub(crate) max_io_depth: u32,
    pub(crate) device_names: Vec<String>,
}

/// A command on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) device: u8,
    pub(crate) is_short: bool,
    /// How often the device had failed when it was sent: a command that crossed a failure is dropped by both sides.
    pub(crate) epoch: u32,
    pub(crate) id: u64,
    pub(crate) code: u32,
    pub(crate) size: u32,
    pub(crate) position: u64,
    pub(crate) place: Option<Place>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Completed {
    pub(crate) device: u8,
    pub(crate) id: u64,
    pub(crate) code: u32,
    pub(crate) bytes: u32,
    pub(crate) position: u64,
    /// False while a client still has the buffer mapped.
    pub(crate) has_buffer: bool,
    pub(crate) reason: Option<Reason>,
}

/// Everything that one process tells another. What a side does is told by the process that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// First of whoever connects.
    Hello {
        is_server: bool,
    },
    /// First of the primary client; to another client with the file of [`super::Control`].
    Welcome(Wishes),
    /// First and last of a primary client that refuses.
    Refused {
        status: u32,
        reason: Reason,
    },
    /// A client that joined has been told everything.
    Joined,
    /// The server began the configuration.
    Begun(Choice),
    /// The server has a new region; its file comes with this.
    Grown {
        len: u64,
    },
    /// The configuration ended; bytes of the buffer area.
    Ended {
        area_size: u32,
    },
    /// The server opened its end of a device.
    ServerOpened {
        device: u8,
    },
    Sent(Sent),
    /// The server closed a device.
    ServerClosed {
        device: u8,
    },
    /// The client has the final configuration.
    Fetched,
    /// A client opened its end of a device.
    ClientOpened {
        device: u8,
    },
    /// A client took a command.
    Taken {
        device: u8,
        id: u64,
    },
    /// A client was told that the device is closed.
    SawClose {
        device: u8,
    },
    Completed(Completed),
    /// A buffer that was still mapped when its command ended is free.
    Returned(Place),
    /// The set is aborted.
    Aborted(Reason),
    /// The server has closed its end, or else the client that tells this; nothing follows.
    Left {
        is_server: bool,
    },
}

/// Reads and writes [`Message`]s.
#[derive(Debug, Default)]
pub(crate) struct Codec;

impl Decoder for Codec {
    type Item = Message;
    type Error = ShmError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Message>, ShmError> {
        let Some(header) = source.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*header) as usize;
        if len == 0 || len > MAX_MESSAGE {
            return Err(ShmError::Message("its length is out of bounds"));
        }
        if source.len() < 4 + len {
            source.reserve(4 + len - source.len());
            return Ok(None);
        }
        source.advance(4);
        let mut body = source.split_to(len).freeze();
        let message = Message::read(&mut body)?;
        if body.has_remaining() {
            return Err(ShmError::Message("bytes follow its last field"));
        }
        Ok(Some(message))
    }
}

impl Encoder<&Message> for Codec {
    type Error = ShmError;

    fn encode(&mut self, message: &Message, target: &mut BytesMut) -> Result<(), ShmError> {
        let start = target.len();
        target.put_u32_le(0);
        message.write(target);
        let len = target.len() - start - 4;
        let Some(header) = u32::try_from(len).ok().filter(|_| len <= MAX_MESSAGE) else {
            target.truncate(start);
            return Err(ShmError::Message("it is too long to be sent"));
        };
        target[start..start + 4].copy_from_slice(&header.to_le_bytes());
        Ok(())
    }
}

impl Message {
    fn write(&self, to: &mut BytesMut) {
        match self {
            Self::Hello { is_server } => {
                to.put_u8(0);
                put_version(to);
                to.put_u8((*is_server).into());
            }
            Self::Welcome(wishes) => {
                to.put_u8(1);
                put_version(to);
                for value in [
                    wishes.device_count,
                    wishes.features,
                    wishes.prefix_zone_size,
                    wishes.alignment,
                    wishes.soft_file_mark_block_size,
                    wishes.eom_warning_size,
                    wishes.server_timeout_millis,
                ] {
                    to.put_u32_le(value);
                }
            }
            Self::Refused { status, reason } => {
                to.put_u8(2);
                put_version(to);
                to.put_u32_le(*status);
                reason.write(to);
            }
            Self::Joined => to.put_u8(3),
            Self::Begun(choice) => {
                to.put_u8(4);
                for value in [
                    choice.features,
                    choice.alignment,
                    choice.block_size,
                    choice.max_transfer_size,
                    choice.max_io_depth,
                ] {
                    to.put_u32_le(value);
                }
                put_texts(to, &choice.device_names, MAX_NAMES);
            }
            Self::Grown { len } => {
                to.put_u8(5);
                to.put_u64_le(*len);
            }
            Self::Ended { area_size } => {
                to.put_u8(6);
                to.put_u32_le(*area_size);
            }
            Self::ServerOpened { device } => to.put_slice(&[7, *device]),
            Self::Sent(sent) => {
                to.put_slice(&[8, sent.device, sent.is_short.into(), sent.place.is_some().into()]);
                to.put_u32_le(sent.epoch);
                to.put_u64_le(sent.id);
                to.put_u32_le(sent.code);
                to.put_u32_le(sent.size);
                to.put_u64_le(sent.position);
                if let Some(place) = sent.place {
                    place.write(to);
                }
            }
            Self::ServerClosed { device } => to.put_slice(&[9, *device]),
            Self::Fetched => to.put_u8(10),
            Self::ClientOpened { device } => to.put_slice(&[11, *device]),
            Self::Taken { device, id } => {
                to.put_slice(&[12, *device]);
                to.put_u64_le(*id);
            }
            Self::SawClose { device } => to.put_slice(&[13, *device]),
            Self::Completed(completed) => {
                to.put_slice(&[14, completed.device, completed.has_buffer.into(), completed.reason.is_some().into()]);
                to.put_u64_le(completed.id);
                to.put_u32_le(completed.code);
                to.put_u32_le(completed.bytes);
                to.put_u64_le(completed.position);
                if let Some(reason) = &completed.reason {
                    reason.write(to);
                }
            }
            Self::Returned(place) => {
                to.put_u8(15);
                place.write(to);
            }
            Self::Aborted(reason) => {
                to.put_u8(16);
                reason.write(to);
            }
            Self::Left { is_server } => to.put_slice(&[17, (*is_server).into()]),
        }
    }

    fn read(from: &mut Bytes) -> Result<Self, ShmError> {
        Ok(match from.try_get_u8()? {
            0 => {
                get_version(from)?;
                Self::Hello { is_server: get_flag(from)? }
            }
            1 => {
                get_version(from)?;
                Self::Welcome(Wishes {
                    device_count: from.try_get_u32_le()?,
                    features: from.try_get_u32_le()?,
                    prefix_zone_size: from.try_get_u32_le()?,
                    alignment: from.try_get_u32_le()?,
                    soft_file_mark_block_size: from.try_get_u32_le()?,
                    eom_warning_size: from.try_get_u32_le()?,
                    server_timeout_millis: from.try_get_u32_le()?,
                })
            }
            2 => {
                get_version(from)?;
                Self::Refused { status: from.try_get_u32_le()?, reason: Reason::read(from)? }
            }
            3 => Self::Joined,
            4 => Self::Begun(Choice {
                features: from.try_get_u32_le()?,
                alignment: from.try_get_u32_le()?,
                block_size: from.try_get_u32_le()?,
                max_transfer_size: from.try_get_u32_le()?,
                max_io_depth: from.try_get_u32_le()?,
                device_names: get_texts(from, MAX_NAMES)?,
            }),
            5 => Self::Grown { len: from.try_get_u64_le()? },
            6 => Self::Ended { area_size: from.try_get_u32_le()? },
            7 => Self::ServerOpened { device: from.try_get_u8()? },
            8 => {
                let (device, is_short, has_place) = (from.try_get_u8()?, get_flag(from)?, get_flag(from)?);
                Self::Sent(Sent {
                    device,
                    is_short,
                    epoch: from.try_get_u32_le()?,
                    id: from.try_get_u64_le()?,
                    code: from.try_get_u32_le()?,
                    size: from.try_get_u32_le()?,
                    position: from.try_get_u64_le()?,
                    place: has_place.then(|| Place::read(from)).transpose()?,
                })
            }
            9 => Self::ServerClosed { device: from.try_get_u8()? },
            10 => Self::Fetched,
            11 => Self::ClientOpened { device: from.try_get_u8()? },
            12 => Self::Taken { device: from.try_get_u8()?, id: from.try_get_u64_le()? },
            13 => Self::SawClose { device: from.try_get_u8()? },
            14 => {
                let (device, has_buffer, has_reason) = (from.try_get_u8()?, get_flag(from)?, get_flag(from)?);
                Self::Completed(Completed {
                    device,
                    has_buffer,
                    id: from.try_get_u64_le()?,
                    code: from.try_get_u32_le()?,
                    bytes: from.try_get_u32_le()?,
                    position: from.try_get_u64_le()?,
                    reason: has_reason.then(|| Reason::read(from)).transpose()?,
                })
            }
            15 => Self::Returned(Place::read(from)?),
            16 => Self::Aborted(Reason::read(from)?),
            17 => Self::Left { is_server: get_flag(from)? },
            _ => return Err(ShmError::Message("its type is unknown")),
        })
    }
}

impl Place {
    fn write(self, to: &mut BytesMut) {
        to.put_u32_le(self.region);
        to.put_u64_le(self.offset);
        to.put_u32_le(self.len);
    }

    fn read(from: &mut Bytes) -> Result<Self, ShmError> {
        Ok(Self { region: from.try_get_u32_le()?, offset: from.try_get_u64_le()?, len: from.try_get_u32_le()? })
    }
}

impl Reason {
    fn write(&self, to: &mut BytesMut) {
        put_text(to, &self.kind);
        put_texts(to, &self.layers, MAX_LAYERS);
    }

    fn read(from: &mut Bytes) -> Result<Self, ShmError> {
        Ok(Self { kind: get_text(from)?, layers: get_texts(from, MAX_LAYERS)? })
    }
}

fn put_version(to: &mut BytesMut) {
    to.put_u32_le(MAGIC);
    to.put_u16_le(VERSION);
}

fn get_version(from: &mut Bytes) -> Result<(), ShmError> {
    if from.try_get_u32_le()? != MAGIC {
        return Err(ShmError::Message("its magic number is another program's"));
    }
    let version = from.try_get_u16_le()?;
    if version == VERSION { Ok(()) } else { Err(ShmError::Version { theirs: version, ours: VERSION }) }
}

fn get_flag(from: &mut Bytes) -> Result<bool, ShmError> {
    match from.try_get_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ShmError::Message("a flag is neither 0 nor 1")),
    }
}

fn put_texts(to: &mut BytesMut, texts: &[String], most: u8) {
    let kept = &texts[..texts.len().min(most.into())];
    // At most `most`, which is a byte.
    to.put_u8(u8::try_from(kept.len()).unwrap_or(most));
    for text in kept {
        put_text(to, text);
    }
}

fn get_texts(from: &mut Bytes, most: u8) -> Result<Vec<String>, ShmError> {
    let count = from.try_get_u8()?;
    if count > most {
        return Err(ShmError::Message("a list is too long"));
    }
    (0..count).map(|_| get_text(from)).collect()
}

/// Long text is cut: it is for people.
fn put_text(to: &mut BytesMut, text: &str) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // At most `MAX_TEXT`, which fits.
    to.put_u16_le(u16::try_from(end).unwrap_or(u16::MAX));
    to.put_slice(&text.as_bytes()[..end]);
}

fn get_text(from: &mut Bytes) -> Result<String, ShmError> {
    let len = usize::from(from.try_get_u16_le()?);
    if len > MAX_TEXT || len > from.remaining() {
        return Err(ShmError::Message("a text is too long"));
    }
    let text = from.split_to(len);
    let text = std::str::from_utf8(&text).map_err(|_| ShmError::Message("a text is not UTF-8"))?;
    Ok(text.to_owned())
}

const MAGIC: u32 = u32::from_le_bytes(*b"vdsm");
/// Both sides must speak the same one: they are two processes of one machine, started together.
const VERSION: u16 = 1;
/// Holds the names of 64 devices, and every reason.
const MAX_MESSAGE: usize = 20_000;
const MAX_NAMES: u8 = 63;
const MAX_LAYERS: u8 = 16;
const MAX_TEXT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn samples() -> Vec<Message> {
        let place = Place { region: 3, offset: 1 << 33, len: 4096 };
        let reason = Reason { kind: "denied".into(), layers: vec!["no key".into(), String::new(), "größer".into()] };
        let sent = Sent {
            device: 63,
            is_short: true,
            epoch: 7,
            id: u64::MAX,
            code: 2,
            size: 4096,
            position: 1 << 40,
            place: Some(place),
        };
        let completed = Completed {
            device: 1,
            id: 9,
            code: 112,
            bytes: 512,
            position: 5,
            has_buffer: true,
            reason: Some(reason.clone()),
        };
        vec![
            Message::Hello { is_server: true },
            Message::Welcome(Wishes {
                device_count: 64,
                features: 1,
                prefix_zone_size: 2,
                alignment: 3,
                soft_file_mark_block_size: 4,
                eom_warning_size: 5,
                server_timeout_millis: u32::MAX,
            }),
            Message::Refused { status: 0x8077_000C, reason: reason.clone() },
            Message::Joined,
            Message::Begun(Choice {
                features: 1,
                alignment: 2,
                block_size: 512,
                max_transfer_size: 65_536,
                max_io_depth: 4,
                device_names: (0..63).map(|_| "n".repeat(200)).collect(),
            }),
            Message::Grown { len: 1 << 32 },
            Message::Ended { area_size: 8192 },
            Message::ServerOpened { device: 0 },
            Message::Sent(sent.clone()),
            Message::Sent(Sent { place: None, is_short: false, ..sent }),
            Message::ServerClosed { device: 0 },
            Message::Fetched,
            Message::ClientOpened { device: 5 },
            Message::Taken { device: 5, id: 6 },
            Message::SawClose { device: 5 },
            Message::Completed(completed.clone()),
            Message::Completed(Completed { reason: None, has_buffer: false, ..completed }),
            Message::Returned(place),
            Message::Aborted(reason),
            Message::Left { is_server: true },
        ]
    }

    #[test]
    fn every_message_comes_back_as_it_was_whatever_the_pieces() {
        let mut bytes = BytesMut::new();
        for message in samples() {
            Codec.encode(&message, &mut bytes).unwrap();
        }
        for piece in [1, 7, bytes.len()] {
            let mut received = Vec::new();
            let mut buffer = BytesMut::new();
            for chunk in bytes.chunks(piece) {
                buffer.extend_from_slice(chunk);
                while let Some(message) = Codec.decode(&mut buffer).unwrap() {
                    received.push(message);
                }
            }
            assert_eq!(received, samples());
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_message_that_is_cut_or_too_long_is_an_error() {
        for message in samples() {
            let mut bytes = BytesMut::new();
            Codec.encode(&message, &mut bytes).unwrap();
            let body = bytes.len() - 4;
            for (len, is_whole) in [(body - 1, false), (body, true), (body + 1, false)] {
                let mut changed = bytes.clone();
                changed.resize(4 + len, 0);
                changed[..4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
                assert_eq!(Codec.decode(&mut changed).is_ok(), is_whole, "{message:?} with {len} bytes");
            }
        }
        let most = u32::try_from(MAX_MESSAGE).unwrap();
        for len in [0, most + 1, u32::MAX] {
            assert!(Codec.decode(&mut BytesMut::from(&len.to_le_bytes()[..])).is_err());
        }
        let waiting = most.to_le_bytes();
        assert!(Codec.decode(&mut BytesMut::from(&waiting[..])).unwrap().is_none());
    }

    #[test]
    fn another_version_is_told_from_nonsense() {
        let mut bytes = BytesMut::new();
        Codec.encode(&Message::Hello { is_server: false }, &mut bytes).unwrap();
        let mut newer = bytes.clone();
        newer[9] = 2;
        assert!(matches!(Codec.decode(&mut newer), Err(ShmError::Version { theirs: 2, ours: 1 })));
        bytes[5] ^= 1;
        assert!(matches!(Codec.decode(&mut bytes), Err(ShmError::Message(_))));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let reason = Reason { kind: String::new(), layers: vec!["ä".repeat(MAX_TEXT); 40] };
        let mut bytes = BytesMut::new();
        Codec.encode(&Message::Aborted(reason), &mut bytes).unwrap();
        let Ok(Some(Message::Aborted(reason))) = Codec.decode(&mut bytes) else { unreachable!() };
        assert_eq!(reason.layers.len(), usize::from(MAX_LAYERS));
        assert!(reason.layers.iter().all(|layer| layer.len() == MAX_TEXT && layer.chars().all(|c| c == 'ä')));
    }
}
