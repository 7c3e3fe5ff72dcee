//! What a store has to do before something that it shows outlives a crash.

use async_trait::async_trait;
use object_store::path::Path;

/// A store that may show what a crash takes away again, because somebody else, or an attempt that failed, has not come to its end.
#[async_trait]
pub(super) trait Durable: Send + Sync {
    /// Makes sure that an object that is there stays there.
    async fn settle(&self, object: &Path) -> object_store::Result<()>;
}
