//! What every [`Transport`](crate::vdi::Transport) must do, whatever lies between the two sides.
//!
//! Each function takes a hub on which nothing else runs, uses sets of its own, leaves nothing, and panics when a promise is
//! broken. [`all`] runs them one after the other.
//!
//! | file | what it is |
//! |---|---|
//! | `suite` | runs everything |
//! | `buffers` | data that is written in several ways, and sent again |
//! | `endings` | who has left, and what the others find then |
//! | `sets` | names, configuration, data, errors, endings |
//! | `media` | the modes, with the reference client on files |
//! | `space` | the buffer area |
//! | `support` | both sides of a set, and the data that they exchange |

mod buffers;
mod endings;
mod media;
mod sets;
mod space;
mod suite;
mod support;

pub use buffers::{
    a_buffer_that_was_sent_in_part_is_sent_whole_later, a_client_fills_its_space_in_several_ways,
    a_writer_sends_bytes_and_what_it_reads_from_a_source,
};
pub use endings::{a_client_finds_what_a_server_that_has_left_agreed, a_secondary_that_leaves_answers_what_it_holds};
pub use media::{
    a_snapshot_comes_after_its_metadata_and_can_be_refused, a_tape_keeps_its_marks_and_positions,
    removable_media_are_loaded_as_they_fill, the_reference_client_restores_what_was_backed_up,
};
pub use sets::{
    a_failed_command_follows_the_error_protocol, an_abort_reaches_the_other_side_with_its_reason,
    both_sides_agree_on_the_configuration, closing_with_open_devices_answers_everything,
    data_arrives_in_order_on_every_device, names_are_busy_until_they_are_released,
};
pub use space::what_is_available_can_be_allocated;
pub use suite::all;
