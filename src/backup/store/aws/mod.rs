//! `s3://`: Amazon S3 and compatible stores, set up from the `AWS_*` variables.
//!
//! | part | what it is |
//! |---|---|
//! | `open` | the client of one bucket |
//! | `source` | where the credentials come from: decided before anything is sent, and named in the error if it cannot be |
//! | `profile` | the files of the AWS tool, which are not read, and are named where they are missed |
//! | `rules` | what the bucket itself does with unfinished uploads and with what is deleted |

mod open;
mod profile;
mod rules;
mod source;

pub(super) use open::open;
