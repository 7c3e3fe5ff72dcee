//! The links of a build without shared memory: there is no other process to tell.

use super::super::area::Area;
use super::super::client::Completion;
use super::super::code::CompletionCode;
use super::super::config::ServerConfig;
use super::super::device_state::CommandId;
use super::super::waiters::Wakes;
use super::inner::{Device, Member};

#[derive(Debug, Default)]
pub(crate) struct Links;

impl Links {
    pub(crate) fn begun(&self, _config: &ServerConfig, _wakes: &mut Wakes) {}
    pub(crate) fn grown(&self, _area: &Area, _wakes: &mut Wakes) {}
    pub(crate) fn ended(&self, _area_size: u32, _wakes: &mut Wakes) {}
    pub(crate) fn server_opened(&self, _device: usize, _wakes: &mut Wakes) {}
    pub(crate) fn sent(&self, _index: usize, _device: &Device, _wakes: &mut Wakes) {}
    pub(crate) fn server_closed(&self, _device: usize, _wakes: &mut Wakes) {}
    pub(crate) fn fetched(&self, _wakes: &mut Wakes) {}
    pub(crate) fn claim(&self, _device: usize) -> bool {
        true
    }
    pub(crate) fn client_opened(&self, _device: usize, _wakes: &mut Wakes) {}
    pub(crate) fn taken(&self, _device: usize, _id: CommandId) {}
    pub(crate) fn saw_close(&self, _device: usize, _wakes: &mut Wakes) {}
    pub(crate) fn completed(&self, _device: usize, _id: CommandId, _answer: Answer<'_>, _wakes: &mut Wakes) {}
    pub(crate) fn aborted(&self, _error: &crate::Error, _wakes: &mut Wakes) {}
    pub(crate) fn server_left(&self, _wakes: &mut Wakes) {}
    pub(crate) fn client_left(&self, _member: Member, _wakes: &mut Wakes) {}
}

/// What a client answered.
#[derive(Debug)]
#[expect(dead_code, reason = "nobody is told")]
pub(crate) struct Answer<'a> {
    pub(crate) code: CompletionCode,
    pub(crate) completion: Completion,
    pub(crate) has_buffer: bool,
    pub(crate) reason: Option<&'a crate::Error>,
}
