//! What client and server ask for, checked, and what they agreed on.

use std::time::Duration;

use super::features::Features;
use super::status::{Error, Status};

/// What a client asks for when it creates a device set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Number of devices, 1 to 64. Default 1. Each is one parallel stream.
    pub device_count: u32,
    /// Mode and options; see [`Features::is_supported`]. Default pipe. Bits that only the server sets are refused.
    pub features: Features,
    /// Bytes of private client space right before each buffer's data. Default 0, at most 65,536. It adds to every buffer.
    pub prefix_zone_size: u32,
    /// Least alignment of the data start that the client needs, in bytes: 0 (default, none) or a power of two up to 65,536.
    pub alignment: u32,
    /// Only with file marks: 0 (default) for hard marks, else the size of the client's soft file mark in bytes.
    pub soft_file_mark_block_size: u32,
    /// Size of the warning zone before the end of a medium, in bytes. Default 0: the server makes no effort to stay in it.
    pub eom_warning_size: u32,
    /// Limit of the client's response time; default zero, no limit. The set is aborted when the completion agent waited
    /// longer than twice this with commands pending and none completing. At most `u32::MAX` milliseconds.
    pub server_timeout: Duration,
}

impl Config {
    /// A set of `devices` sequential devices whose end is confirmed by `Complete`, if the server can.
    pub fn pipe(devices: u32) -> Self {
        Self { device_count: devices, features: Features::PIPE | Features::REQUEST_COMPLETE, ..Self::default() }
    }

    /// Checks every bound.
    pub(crate) fn validate(self) -> Result<Self, Error> {
        let refuse = |message: String| Err(Error::new(Status::NotSupported, message));
        if !(1..=MAX_DEVICES).contains(&self.device_count) {
            return refuse(format!("device_count is {}, it must be 1 to {MAX_DEVICES}", self.device_count));
        }
        if !self.features.is_supported() {
            return refuse(format!("{:?} is not a supported mix of features", self.features));
        }
        if self.prefix_zone_size > MAX_PREFIX_ZONE {
            return refuse(format!(
                "prefix_zone_size is {}, at most {MAX_PREFIX_ZONE} is possible",
                self.prefix_zone_size
            ));
        }
        if self.alignment != 0 && !is_alignment(self.alignment) {
            return refuse(format!(
                "alignment is {}, it must be 0 or a power of two up to {MAX_ALIGNMENT}",
                self.alignment
            ));
        }
        if self.soft_file_mark_block_size != 0 && !self.features.contains(Features::FILE_MARKS) {
            return refuse("soft_file_mark_block_size needs the feature FILE_MARKS".to_owned());
        }
        if self.server_timeout.as_millis() > u128::from(u32::MAX) {
            return refuse(format!("server_timeout is {:?}, at most {} ms is possible", self.server_timeout, u32::MAX));
        }
        Ok(self)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device_count: 1,
            features: Features::PIPE,
            prefix_zone_size: 0,
            alignment: 0,
            soft_file_mark_block_size: 0,
            eom_warning_size: 0,
            server_timeout: Duration::ZERO,
        }
    }
}

/// What the server fixes in `begin_configuration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The bits that the server adds: `WRITE_MEDIA`, `READ_MEDIA`, `COMPLETE_ENABLED`, no others.
    /// `COMPLETE_ENABLED` takes effect only if the client asked for it. Default `WRITE_MEDIA | COMPLETE_ENABLED`.
    pub features: Features,
    /// Alignment of the data start of every buffer, in bytes: a power of two from `block_size` to 65,536.
    /// Default 0: the block size, or the client's wish if that is stricter.
    pub alignment: u32,
    /// Unit of transfers, in bytes: a power of two, 512 (default) to 65,536.
    pub block_size: u32,
    /// Largest transfer, in bytes: a multiple of 65,536 (default) up to 4,194,304. A server's buffers are usually of this size.
    pub max_transfer_size: u32,
    /// Commands that wait in one device's queue before `send` reports `QueueFull`: 1 to 256. Default 4.
    pub max_io_depth: u32,
    /// Names of the devices after the first, which is named like the set. Default empty: `<set>-2`, `<set>-3` and so on.
    /// Otherwise as many as there are further devices, each different.
    pub device_names: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            features: Features::WRITE_MEDIA | Features::COMPLETE_ENABLED,
            alignment: 0,
            block_size: 512,
            max_transfer_size: 65_536,
            max_io_depth: 4,
            device_names: Vec::new(),
        }
    }
}

/// The eleven values of a set, as far as they are agreed, and the names of its devices.
///
/// Before the server began to configure, the last four values are zero and the rest are the client's wishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Configuration {
    /// Number of devices.
    pub device_count: u32,
    /// The client's features and the server's bits.
    pub features: Features,
    /// Bytes of client space before each buffer's data.
    pub prefix_zone_size: u32,
    /// Alignment of the data start, in bytes; final once the server chose it.
    pub alignment: u32,
    /// Size of a soft file mark in bytes; 0 for hard marks.
    pub soft_file_mark_block_size: u32,
    /// Size of the warning zone before the end of a medium, in bytes.
    pub eom_warning_size: u32,
    /// The no-progress limit; zero is none.
    pub server_timeout: Duration,
    /// Unit of transfers, in bytes.
    pub block_size: u32,
    /// Commands that fit into one device's queue.
    pub max_io_depth: u32,
    /// Largest transfer, in bytes.
    pub max_transfer_size: u32,
    /// Total of the buffer area when the configuration ended, in bytes; it may grow later.
    pub buffer_area_size: u32,
    /// The devices' names, by index.
    pub device_names: Vec<String>,
}

impl Configuration {
    /// The client's wishes, nothing agreed yet.
    pub(crate) fn wished(name: &str, config: &Config) -> Self {
        Self {
            device_count: config.device_count,
            features: config.features,
            prefix_zone_size: config.prefix_zone_size,
            alignment: config.alignment,
            soft_file_mark_block_size: config.soft_file_mark_block_size,
            eom_warning_size: config.eom_warning_size,
            server_timeout: config.server_timeout,
            device_names: default_names(name, config.device_count),
            ..Self::default()
        }
    }

    /// The wishes joined with what the server fixes.
    pub(crate) fn agreed(&self, server: ServerConfig) -> Result<Self, Error> {
        let refuse = |message: String| Err(Error::new(Status::Invalid, message));
        let ServerConfig { features, alignment, block_size, max_transfer_size, max_io_depth, device_names } = server;
        if features.intersects(!Features::SERVER) {
            return refuse(format!("{features:?} has bits that only a client sets"));
        }
        if !block_size.is_power_of_two() || !(MIN_BLOCK..=MAX_BLOCK).contains(&block_size) {
            return refuse(format!(
                "block_size is {block_size}, it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}"
            ));
        }
        if alignment != 0 && (!is_alignment(alignment) || alignment < block_size) {
            return refuse(format!(
                "alignment is {alignment}, it must be 0 or a power of two from {block_size} to {MAX_ALIGNMENT}"
            ));
        }
        if max_transfer_size == 0
            || !max_transfer_size.is_multiple_of(TRANSFER_UNIT)
            || max_transfer_size > MAX_TRANSFER
        {
            return refuse(format!(
                "max_transfer_size is {max_transfer_size}, it must be a multiple of {TRANSFER_UNIT} up to {MAX_TRANSFER}"
            ));
        }
        if !(1..=MAX_DEPTH).contains(&max_io_depth) {
            return refuse(format!("max_io_depth is {max_io_depth}, it must be 1 to {MAX_DEPTH}"));
        }
        let mut agreed = self.clone();
        if !device_names.is_empty() {
            agreed.device_names.truncate(1);
            for name in device_names {
                if !is_name(&name) || agreed.device_names.contains(&name) {
                    return refuse(format!("device name {name:?} is empty, holds a backslash, or is there twice"));
                }
                agreed.device_names.push(name);
            }
            if agreed.device_names.len() != agreed.device_count as usize {
                return refuse(format!(
                    "device_names has {} names for {} further devices",
                    agreed.device_names.len() - 1,
                    agreed.device_count - 1
                ));
            }
        }
        let mut added = features & (Features::WRITE_MEDIA | Features::READ_MEDIA);
        if self.features.contains(Features::REQUEST_COMPLETE) && features.contains(Features::COMPLETE_ENABLED) {
            added |= Features::COMPLETE_ENABLED;
        }
        agreed.features |= added;
        agreed.alignment = if alignment == 0 { block_size.max(self.alignment) } else { alignment };
        agreed.block_size = block_size;
        agreed.max_transfer_size = max_transfer_size;
        agreed.max_io_depth = max_io_depth;
        Ok(agreed)
    }
}

/// True if `name` can name a set or a device.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains(['\\', '\0'])
}

pub(crate) fn is_alignment(alignment: u32) -> bool {
    alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT
}

fn default_names(set: &str, count: u32) -> Vec<String> {
    std::iter::once(set.to_owned()).chain((2..=count).map(|number| format!("{set}-{number}"))).collect()
}

/// The specification's bound.
pub(crate) const MAX_DEVICES: u32 = 64;
/// The specification's bound for the final alignment; buffers of one set share it.
pub(crate) const MAX_ALIGNMENT: u32 = 65_536;
/// One alignment unit: more would cost more than the largest block.
const MAX_PREFIX_ZONE: u32 = 65_536;
const MIN_BLOCK: u32 = 512;
const MAX_BLOCK: u32 = 65_536;
const TRANSFER_UNIT: u32 = 65_536;
const MAX_TRANSFER: u32 = 4_194_304;
/// Deep enough to hide any latency; keeps a queue's memory small.
const MAX_DEPTH: u32 = 256;
/// Fits a file name on every system with room for a suffix.
const MAX_NAME_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_device_names_start_with_the_set() {
        assert_eq!(default_names("a", 1), ["a"]);
        assert_eq!(default_names("a", 3), ["a", "a-2", "a-3"]);
    }

    #[test]
    fn further_device_names_are_counted_and_different() {
        let wished = Configuration::wished("set", &Config { device_count: 3, ..Config::default() });
        let names = |names: &[&str]| {
            let device_names = names.iter().map(|name| (*name).to_owned()).collect();
            wished.agreed(ServerConfig { device_names, ..ServerConfig::default() })
        };
        assert_eq!(names(&["x", "y"]).unwrap().device_names, ["set", "x", "y"]);
        for wrong in [&["x"] as &[&str], &["x", "x"], &["x", "set"], &["x", "y", "z"], &["x", ""], &["x", "a\\b"]] {
            assert_eq!(names(wrong).unwrap_err().status(), Status::Invalid, "{wrong:?}");
        }
    }

    #[test]
    fn an_alignment_of_zero_is_the_block_size_or_the_clients_stricter_wish() {
        for (wish, block_size, expected) in [(0, 512, 512), (0, 65_536, 65_536), (1, 512, 512), (4096, 512, 4096)] {
            let wished = Configuration::wished("set", &Config { alignment: wish, ..Config::default() });
            let agreed = wished.agreed(ServerConfig { block_size, ..ServerConfig::default() }).unwrap();
            assert_eq!(agreed.alignment, expected);
        }
    }
}
