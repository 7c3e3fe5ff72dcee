//! Credentials as people have them, against local stand-ins for the services that give them; what buckets demand, as it is sent.

#![allow(clippy::panic, clippy::unwrap_used)]

mod aws;
mod azure;
mod demands;
mod gcp;
mod support;
