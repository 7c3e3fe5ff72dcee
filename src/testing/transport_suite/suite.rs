//! The whole suite.

use std::path::Path;

use super::{buffers, endings, media, sets};
use crate::error::Result;
use crate::vdi::Transport;

/// Runs the whole suite; `directory` is for the media of the reference client.
///
/// # Errors
///
/// Of a call that should have succeeded.
///
/// # Panics
///
/// If the transport breaks a promise.
///
/// # Cancel safety
///
/// Not cancel-safe: a suite that is dropped may leave a set behind.
pub async fn all(hub: &dyn Transport, directory: &Path) -> Result<()> {
    super::space::what_is_available_can_be_allocated(hub).await?;
    sets::names_are_busy_until_they_are_released(hub).await?;
    sets::both_sides_agree_on_the_configuration(hub).await?;
    sets::data_arrives_in_order_on_every_device(hub).await?;
    buffers::a_writer_sends_bytes_and_what_it_reads_from_a_source(hub).await?;
    buffers::a_buffer_that_was_sent_in_part_is_sent_whole_later(hub).await?;
    buffers::a_client_fills_its_space_in_several_ways(hub).await?;
    sets::a_failed_command_follows_the_error_protocol(hub).await?;
    sets::an_abort_reaches_the_other_side_with_its_reason(hub).await?;
    sets::closing_with_open_devices_answers_everything(hub).await?;
    endings::a_client_finds_what_a_server_that_has_left_agreed(hub).await?;
    endings::a_secondary_that_leaves_answers_what_it_holds(hub).await?;
    media::the_reference_client_restores_what_was_backed_up(hub, directory).await?;
    media::removable_media_are_loaded_as_they_fill(hub, directory).await?;
    media::a_tape_keeps_its_marks_and_positions(hub, directory).await?;
    media::a_snapshot_comes_after_its_metadata_and_can_be_refused(hub, directory).await?;
    assert_eq!(hub.names(), Vec::<String>::new(), "nothing is left in the hub");
    Ok(())
}
