//! A store in memory whose whole content is a value: objects, and the multipart uploads that are not finished.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::clock::Clock;
use crate::sync::Mutex;

/// Everything that a bucket holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The objects by their path.
    pub objects: BTreeMap<String, StoredObject>,
    /// The multipart uploads that are neither complete nor aborted, by their id.
    pub uploads: BTreeMap<String, OpenUpload>,
}

/// One object.
#[derive(Debug, Clone, Eq)]
pub struct StoredObject {
    /// Its bytes.
    pub bytes: Bytes,
    /// When it was written, by the bucket's clock.
    pub modified: Timestamp,
}

impl PartialEq for StoredObject {
    /// Contents that are rebuilt from one log share their bytes, so most need not be looked at.
    fn eq(&self, other: &Self) -> bool {
        self.modified == other.modified && is_same(&self.bytes, &other.bytes)
    }
}

fn is_same(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len() || one == other
}

/// A multipart upload that is not finished. A real store charges for it and shows it only to those who ask.
#[derive(Debug, Clone, Default, Eq)]
pub struct OpenUpload {
    /// The path of the object that it would become.
    pub object: String,
    /// The parts that arrived.
    pub parts: BTreeMap<usize, Bytes>,
}

impl PartialEq for OpenUpload {
    fn eq(&self, other: &Self) -> bool {
        let is_same =
            |((one, part), (index, other)): ((&usize, &Bytes), (&usize, &Bytes))| one == index && is_same(part, other);
        self.object == other.object
            && self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(is_same)
    }
}

impl OpenUpload {
    /// The parts that arrived, one after the other.
    fn whole(&self) -> Bytes {
        let parts: Vec<&[u8]> = self.parts.values().map(AsRef::as_ref).collect();
        parts.concat().into()
    }
}

/// What a request changes. Each is atomic, as stores promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// An object appears, or is replaced.
    Put {
        /// Its path.
        object: String,
        /// Its bytes.
        bytes: Bytes,
        /// Only if there is none.
        create: bool,
    },
    /// An object goes.
    Delete {
        /// Its path.
        object: String,
    },
    /// A multipart upload begins.
    Begin {
        /// The path of the object that it would become.
        object: String,
        /// Its id.
        upload: String,
    },
    /// A part arrives.
    Part {
        /// The id of the upload.
        upload: String,
        /// The number of the part, from 0.
        index: usize,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The parts become an object.
    Complete {
        /// The id of the upload.
        upload: String,
    },
    /// The upload and its parts go.
    Abort {
        /// The id of the upload.
        upload: String,
    },
}

impl Effect {
    /// True if the order of the two can matter.
    pub fn touches_the_same(&self, other: &Self) -> bool {
        let place = |effect: &Self| match effect {
            Self::Put { object, .. } | Self::Delete { object } => object.clone(),
            Self::Begin { upload, .. }
            | Self::Part { upload, .. }
            | Self::Complete { upload }
            | Self::Abort { upload } => upload.clone(),
        };
        // The upload does not tell which object it is of, so it may be any.
        let is_named = |effect: &Self| matches!(effect, Self::Put { .. } | Self::Delete { .. });
        let meets = |one: &Self, other: &Self| matches!(one, Self::Complete { .. }) && is_named(other);
        place(self) == place(other) || meets(self, other) || meets(other, self)
    }
}

/// Why an effect did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Exists,
    NotFound,
    MissingPart,
}

impl Contents {
    /// Changes the content; does nothing if the store would refuse.
    pub fn apply(&mut self, effect: &Effect, at: Timestamp) {
        let _refused = self.change(effect, at);
    }

    fn change(&mut self, effect: &Effect, at: Timestamp) -> Result<(), Refusal> {
        match effect {
            Effect::Put { object, create: true, .. } if self.objects.contains_key(object) => Err(Refusal::Exists),
            Effect::Put { object, bytes, .. } => {
                self.objects.insert(object.clone(), StoredObject { bytes: bytes.clone(), modified: at });
                Ok(())
            }
            Effect::Delete { object } => self.objects.remove(object).map(drop).ok_or(Refusal::NotFound),
            Effect::Begin { object, upload } => {
                self.uploads.insert(upload.clone(), OpenUpload { object: object.clone(), parts: BTreeMap::new() });
                Ok(())
            }
            Effect::Part { upload, index, bytes } => {
                let upload = self.uploads.get_mut(upload).ok_or(Refusal::NotFound)?;
                upload.parts.insert(*index, bytes.clone());
                Ok(())
            }
            Effect::Complete { upload: id } => {
                let upload = self.uploads.get(id).ok_or(Refusal::NotFound)?;
                if !upload.parts.keys().copied().eq(0..upload.parts.len()) {
                    return Err(Refusal::MissingPart);
                }
                let stored = StoredObject { bytes: upload.whole(), modified: at };
                self.objects.insert(upload.object.clone(), stored);
                self.uploads.remove(id);
                Ok(())
            }
            Effect::Abort { upload } => self.uploads.remove(upload).map(drop).ok_or(Refusal::NotFound),
        }
    }

    /// The same as a crash on local disk leaves it: an upload is a file beside its place that holds what was written.
    #[must_use]
    pub fn on_disk(mut self, at: Timestamp) -> Self {
        for (id, upload) in std::mem::take(&mut self.uploads) {
            self.stage(&upload.object, &id, upload.whole(), at);
        }
        self
    }

    /// Leaves a file that was being written to local disk and never got its name.
    pub fn stage(&mut self, object: &str, id: &str, bytes: Bytes, at: Timestamp) {
        self.objects.insert(format!("{object}.partial-{id}"), StoredObject { bytes, modified: at });
    }
}

/// A store in memory that starts with given [`Contents`] and shows them at any time. Clones share them.
///
/// Unlike `object_store`'s memory store it shows the uploads that are not finished, keeps them when it is set up anew, takes
/// its times from a [`Clock`], and can ignore the condition of create-only puts, or not know it, as some compatible stores do.
#[derive(Clone)]
pub struct Bucket {
    contents: Arc<Mutex<Contents>>,
    clock: Arc<dyn Clock>,
    next_upload: Arc<Mutex<u64>>,
    condition: Condition,
    /// Parts that were sent and have not arrived, if there are such.
    on_their_way: Option<Arc<Mutex<Vec<Arriving>>>>,
    /// What is uploaded in parts is dated by the beginning of its upload.
    dates_by_beginning: bool,
}

/// What becomes of the condition of a create-only put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Kept,
    Ignored,
    Unknown,
}

/// A part between its sender and the bucket.
#[derive(Debug)]
struct Arriving {
    number: u64,
    object: String,
    upload: String,
    index: usize,
    bytes: Bytes,
}

impl Bucket {
    /// A bucket that holds `contents`.
    pub fn new(contents: Contents, clock: Arc<dyn Clock>) -> Self {
        Self {
            contents: Arc::new(Mutex::new(contents)),
            clock,
            next_upload: Arc::new(Mutex::new(1)),
            condition: Condition::Kept,
            on_their_way: None,
            dates_by_beginning: false,
        }
    }

    /// The same bucket, answering create-only puts with success whether or not the object exists.
    #[must_use]
    pub fn ignoring_create_only(mut self) -> Self {
        self.condition = Condition::Ignored;
        self
    }

    /// The same bucket, answering create-only puts with `NotImplemented`, as a store does that does not know them, or for which
    /// they are switched off.
    #[must_use]
    pub fn without_create_only(mut self) -> Self {
        self.condition = Condition::Unknown;
        self
    }

    /// The same bucket, in which a part takes 20 s of the clock to arrive, whether or not its sender still waits. Of an upload
    /// that is aborted meanwhile such a part is kept, as some stores say of themselves: it is there again with that part, until it is
    /// aborted once more.
    #[must_use]
    pub fn with_late_parts(mut self) -> Self {
        self.on_their_way = Some(Arc::default());
        self
    }

    /// The same bucket, in which an object that was uploaded in parts is dated by the beginning of its upload and not by its completion, as
    /// on Amazon S3.
    #[must_use]
    pub fn dating_by_beginning(mut self) -> Self {
        self.dates_by_beginning = true;
        self
    }

    /// What an object is dated by that appears now.
    fn date_of(&self, effect: &Effect) -> Timestamp {
        match effect {
            Effect::Complete { upload } if self.dates_by_beginning => begun(upload),
            _ => self.clock.wall(),
        }
    }

    /// Takes a part that was sent, if it is still on its way.
    fn arrive(&self, number: u64) -> Option<Arriving> {
        let mut parts = self.on_their_way.as_ref()?.lock();
        let at = parts.iter().position(|part| part.number == number)?;
        Some(parts.remove(at))
    }

    /// What was sent to an upload that is aborted now.
    fn arrive_late(&self, upload: &str) {
        let Some(parts) = &self.on_their_way else { return };
        let late: Vec<Arriving> = parts.lock().extract_if(.., |part| part.upload == upload).collect();
        let at = self.clock.wall();
        let mut contents = self.contents.lock();
        for Arriving { object, upload, index, bytes, .. } in late {
            if !contents.uploads.contains_key(&upload) {
                contents.apply(&Effect::Begin { object, upload: upload.clone() }, at);
            }
            contents.apply(&Effect::Part { upload, index, bytes }, at);
        }
    }

    /// What it holds now.
    pub fn contents(&self) -> Contents {
        self.contents.lock().clone()
    }

    /// Changes what it holds, past all requests.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Contents) -> T) -> T {
        change(&mut self.contents.lock())
    }

    fn change(&self, effect: &Effect) -> Result<PutResult> {
        let refusal = match self.contents.lock().change(effect, self.date_of(effect)) {
            Ok(()) => return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
            Err(refusal) => refusal,
        };
        let path = format!("{effect:?}");
        Err(match refusal {
            Refusal::Exists => Error::AlreadyExists { path, source: "it exists already".into() },
            Refusal::NotFound => Error::NotFound { path, source: "there is none".into() },
            Refusal::MissingPart => Error::Generic { store: NAME, source: "a part is missing".into() },
        })
    }

    fn find(&self, location: &Path) -> Result<(ObjectMeta, Bytes)> {
        let contents = self.contents.lock();
        let found = contents.objects.get(location.as_ref());
        let found = found
            .ok_or_else(|| Error::NotFound { path: location.to_string(), source: "there is no such object".into() })?;
        Ok((meta(location.as_ref(), found), found.bytes.clone()))
    }
}

const NAME: &str = "bucket";

/// The time that a late part needs.
const ON_THE_WAY: Duration = Duration::from_secs(20);

/// What a listing shows of an object.
fn meta(path: &str, object: &StoredObject) -> ObjectMeta {
    let since = Duration::try_from(object.modified.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    ObjectMeta {
        location: Path::from(path),
        last_modified: (UNIX_EPOCH + since).into(),
        size: object.bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

/// When an upload was begun, as its id tells.
fn begun(upload: &str) -> Timestamp {
    let nanos = upload.get(..16).and_then(|nanos| u64::from_str_radix(nanos, 16).ok()).unwrap_or(0);
    Timestamp::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// The bytes of a payload, copied: the caller may use its memory again.
pub(super) fn copied(payload: &PutPayload) -> Bytes {
    let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
    bytes.into()
}

fn unsupported(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: NAME.to_owned() }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.contents.lock();
        let (objects, uploads) = (contents.objects.len(), contents.uploads.len());
        f.debug_struct("Bucket").field("objects", &objects).field("uploads", &uploads).finish_non_exhaustive()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create if self.condition == Condition::Unknown => return Err(unsupported("create")),
            PutMode::Create => self.condition == Condition::Kept,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(unsupported("update")),
        };
        self.change(&Effect::Put { object: location.to_string(), bytes: copied(&payload), create })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart uploads by stream; parts go through the multipart store"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (meta, bytes) = self.find(location)?;
        options.check_preconditions(&meta)?;
        let range = match options.range {
            None => 0..meta.size,
            Some(range) => {
                let range = range.as_range(meta.size);
                range.map_err(|error| Error::Generic { store: NAME, source: Box::new(error) })?
            }
        };
        let within = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes.slice(within))]).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Result<Path>| {
            let location = location?;
            this.change(&Effect::Delete { object: location.to_string() })?;
            Ok(location)
        };
        locations.map(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = Path::default();
        let prefix = prefix.unwrap_or(&root);
        let all: Vec<ObjectMeta> =
            self.contents.lock().objects.iter().map(|(path, object)| meta(path, object)).collect();
        let below = all
            .into_iter()
            .filter(|meta| meta.location.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some()));
        stream::iter(below.map(Ok).collect::<Vec<_>>()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        let prefix = prefix.unwrap_or(&root);
        let mut directories = BTreeSet::new();
        let mut objects = Vec::new();
        let all = self.list(Some(prefix)).collect::<Vec<_>>().now_or_never().unwrap_or_default();
        for meta in all {
            let meta = meta?;
            let mut rest = meta.location.parts().skip(prefix.parts().count());
            match (rest.next(), rest.next()) {
                (Some(directory), Some(_below)) => {
                    directories.insert(prefix.clone().join(directory));
                }
                _ => objects.push(meta),
            }
        }
        let common_prefixes = directories.into_iter().collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}

#[async_trait]
impl MultipartStore for Bucket {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let number = {
            let mut next = self.next_upload.lock();
            *next += 1;
            *next
        };
        // As on local disk, so that an upload of a rebuilt bucket can stand for a staged file. The clock keeps ids of
        // buckets apart that were set up one after the other.
        let nanos = u64::try_from(self.clock.wall().as_nanosecond()).unwrap_or(0);
        let upload = format!("{nanos:016x}{number:016x}");
        self.change(&Effect::Begin { object: path.to_string(), upload: upload.clone() })?;
        Ok(upload)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        if let Some(parts) = &self.on_their_way {
            let number = {
                let mut next = self.next_upload.lock();
                *next += 1;
                *next
            };
            let (object, upload, bytes) = (path.to_string(), id.clone(), copied(&data));
            parts.lock().push(Arriving { number, object, upload, index: part_idx, bytes });
            self.clock.sleep(ON_THE_WAY).await;
            if self.arrive(number).is_none() {
                let path = path.to_string();
                return Err(Error::NotFound { path, source: "the upload was aborted meanwhile".into() });
            }
        }
        self.change(&Effect::Part { upload: id.clone(), index: part_idx, bytes: copied(&data) })?;
        Ok(PartId { content_id: part_idx.to_string() })
    }

    async fn complete_multipart(&self, _: &Path, id: &MultipartId, _: Vec<PartId>) -> Result<PutResult> {
        self.change(&Effect::Complete { upload: id.clone() })
    }

    async fn abort_multipart(&self, _: &Path, id: &MultipartId) -> Result<()> {
        let aborted = self.change(&Effect::Abort { upload: id.clone() }).map(drop);
        self.arrive_late(id);
        aborted
    }
}
