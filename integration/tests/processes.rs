//! The tool is killed and its backup resumed or collected, its disk is full or closed, its clock goes back: what is listed is whole,
//! and nothing else is left.

use integration::chaos::{On, play_short as play};
use integration::server::Kind;

#[test]
fn a_backup_killed_at_a_named_point_is_whole_or_absent_on_disk() {
    play(On::Disk, "killed");
}

#[test]
fn a_backup_killed_at_a_named_point_is_whole_or_absent_on_garage() {
    play(On::Server(Kind::Garage), "killed");
}

#[test]
fn a_backup_killed_at_a_named_point_is_whole_or_absent_on_azurite() {
    play(On::Server(Kind::Azurite), "killed");
}

#[test]
fn a_backup_killed_at_a_named_point_is_whole_or_absent_on_moto() {
    play(On::Server(Kind::Moto), "killed");
}

#[test]
fn a_full_disk_ends_one_backup_and_harms_no_other() {
    play(On::Disk, "the disk is full");
}

#[test]
fn a_directory_that_is_closed_ends_the_work_with_an_error() {
    play(On::Disk, "the permission is lost");
    play(On::Disk, "the target is read-only");
}

#[test]
fn a_clock_that_goes_back_harms_no_backup() {
    play(On::Disk, "the clock");
}
