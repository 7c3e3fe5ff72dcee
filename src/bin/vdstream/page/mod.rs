//! A backup as a page to look at: one HTML file that asks nothing of a network, with charts drawn when it is written.
//!
//! | file | what |
//! |---|---|
//! | `facts` | what the page tells, taken from a manifest or from an attempt that failed |
//! | `chart` | pictures as SVG: throughput over time, bars |
//! | `layout`, `style.css` | the page around them, for screens of any width, light, dark, and paper |
//! | `file` | the file, which appears at once and whole |

mod chart;
mod facts;
mod file;
mod layout;

pub(crate) use facts::{Attempt, Facts, Story, restore_command};
pub(crate) use file::PageFile;
