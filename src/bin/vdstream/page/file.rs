//! The file that a page goes to.

use std::path::Path;

use futures::stream;
use vdstream::{Error, ErrorKind, Result};

use super::facts::Facts;
use super::layout;
use crate::target::{Safety, Target};

/// A page that is going to be written. Opened early, so that a place where nothing can be written is known before the work.
pub(crate) struct PageFile(Target);

impl PageFile {
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Err(Error::new(ErrorKind::Invalid, "a page goes to a file, not to stdout: give it a name"));
        }
        Ok(Self(Target::open(path, Safety::Machine).await?))
    }

    /// Writes it: the file is there as a whole, or as it was before.
    pub(crate) async fn write(mut self, facts: &Facts<'_>) -> Result<()> {
        let html = layout::page(facts)?;
        self.0.fill(stream::iter([Ok(html.into())])).await?;
        self.0.finish().await?;
        self.0.publish().await
    }
}
