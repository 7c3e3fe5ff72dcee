//! A backup and a restore on real servers, across a network that fails at chosen bytes and requests.
//!
//! Each test plays the short scenarios of one kind on one server; `integration/chaos` plays all of them, many times.

use integration::chaos::{On, play_short as play};
use integration::server::Kind;

#[test]
fn a_backup_goes_on_after_resets_and_lost_answers_on_garage() {
    play(On::Server(Kind::Garage), "backup: parts are reset");
    play(On::Server(Kind::Garage), "backup: the answer to each request is lost");
}

#[test]
fn a_backup_goes_on_after_resets_and_lost_answers_on_azurite() {
    play(On::Server(Kind::Azurite), "backup: parts are reset");
    play(On::Server(Kind::Azurite), "backup: the answer to each request is lost");
}

#[test]
fn a_backup_goes_on_when_requests_and_answers_stand_still() {
    play(On::Server(Kind::Garage), "backup: a part and an answer stand still");
}

#[test]
fn a_backup_goes_on_over_a_link_of_one_megabyte_per_second() {
    play(On::Server(Kind::Garage), "backup: the link has 1 MB/s");
}

#[test]
fn a_backup_goes_on_after_twenty_seconds_of_refusal() {
    play(On::Server(Kind::Garage), "backup: connections are refused for 20 s");
}

#[test]
fn a_backup_goes_on_when_its_server_is_killed_and_comes_back() {
    play(On::Server(Kind::Garage), "backup: the server is killed");
}

#[test]
fn a_restore_goes_on_after_resets_on_garage_and_azurite() {
    play(On::Server(Kind::Garage), "restore: answers are reset");
    play(On::Server(Kind::Azurite), "restore: answers are reset");
}

#[test]
fn a_restore_goes_on_when_an_answer_stands_still() {
    play(On::Server(Kind::Garage), "restore: an answer stands still");
}

#[test]
fn a_restore_goes_on_when_its_server_is_killed_and_comes_back() {
    play(On::Server(Kind::Garage), "restore: the server is killed");
}
