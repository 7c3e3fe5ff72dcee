//! Parts for a store that offers only `put_multipart`: in order, each once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    MultipartId, MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::sync::Mutex;

/// Multipart uploads through [`ObjectStore::put_multipart_opts`], for a caller's store that has no [`MultipartStore`].
///
/// Such an upload numbers its parts by the order of the calls, so a part waits for those before it to be handed over,
/// and one that failed cannot be sent again. Its id is not known either: what a crash leaves behind has to be removed
/// by the store's own rules.
pub(super) struct Sequential {
    objects: Arc<dyn ObjectStore>,
    uploads: Mutex<HashMap<MultipartId, Arc<Upload>>>,
}

struct Upload {
    state: Mutex<State>,
    moved: Notify,
}

struct State {
    /// `None` while it is being completed or aborted, and afterwards.
    upload: Option<Box<dyn MultipartUpload>>,
    next: usize,
}

impl Sequential {
    pub(super) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, uploads: Mutex::new(HashMap::new()) }
    }

    fn take(&self, id: &MultipartId) -> Option<Box<dyn MultipartUpload>> {
        let entry = self.uploads.lock().remove(id)?;
        entry.moved.notify_waiters();
        entry.state.lock().upload.take()
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequential({})", self.objects)
    }
}

fn gone() -> object_store::Error {
    object_store::Error::NotFound {
        path: String::new(),
        source: "this upload was completed, aborted or never started".into(),
    }
}

impl Upload {
    /// Hands part `index` over once it is its turn.
    async fn start(&self, index: usize, data: &PutPayload) -> Result<UploadPart> {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            {
                let mut state = self.state.lock();
                let next = state.next;
                let upload = state.upload.as_mut().ok_or_else(gone)?;
                if index < next {
                    return Err(object_store::Error::NotSupported {
                        source: format!(
                            "part {index} failed, and this store cannot take a part twice; give its multipart store too"
                        )
                        .into(),
                    });
                }
                if index == next {
                    let part = upload.put_part(data.clone());
                    state.next += 1;
                    drop(state);
                    self.moved.notify_waiters();
                    return Ok(part);
                }
            }
            moved.await;
        }
    }
}

#[async_trait]
impl MultipartStore for Sequential {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.create_multipart_opts(path, PutMultipartOptions::default()).await
    }

    async fn create_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<MultipartId> {
        let upload = self.objects.put_multipart_opts(path, options).await?;
        let id = Uuid::new_v4().simple().to_string();
        let state = State { upload: Some(upload), next: 0 };
        self.uploads.lock().insert(id.clone(), Arc::new(Upload { state: Mutex::new(state), moved: Notify::new() }));
        Ok(id)
    }

    async fn put_part(&self, _: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        let upload = self.uploads.lock().get(id).cloned().ok_or_else(gone)?;
        upload.start(part_idx, &data).await?.await?;
        Ok(PartId { content_id: part_idx.to_string() })
    }

    async fn complete_multipart(&self, _: &Path, id: &MultipartId, _: Vec<PartId>) -> Result<PutResult> {
        let mut upload = self.take(id).ok_or_else(gone)?;
        upload.complete().await
    }

    async fn abort_multipart(&self, _: &Path, id: &MultipartId) -> Result<()> {
        match self.take(id) {
            Some(mut upload) => upload.abort().await,
            None => Ok(()),
        }
    }
}
