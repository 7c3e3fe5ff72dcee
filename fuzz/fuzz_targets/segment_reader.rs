//! The reader of segments, from ranged reads to delivered bytes: frames of the fuzzer's own under an index that believes them.
#![no_main]

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use vdstream::clock::SystemClock;
use vdstream::pipeline::{
    Pipeline, PipelineConfig, SegmentId, SegmentStore, SegmentUpload, SegmentSummary, StripeSummary,
};
use vdstream::testing::decoder::forged_segment;
use vdstream::{Error, ErrorKind, Result};

const FRAME: usize = 65_536;

/// One object, whatever the segment.
#[derive(Debug, Default)]
struct One(Mutex<Bytes>);

#[async_trait]
impl SegmentStore for One {
    fn min_part_bytes(&self) -> u64 {
        1
    }

    fn max_parts(&self) -> u32 {
        1
    }

    async fn put(&self, _: SegmentId, _: Vec<Bytes>) -> Result<()> {
        Err(Error::new(ErrorKind::Invalid, "it is read only"))
    }

    async fn begin(&self, _: SegmentId) -> Result<Box<dyn SegmentUpload>> {
        Err(Error::new(ErrorKind::Invalid, "it is read only"))
    }

    async fn read(&self, _: SegmentId, range: Range<u64>) -> Result<Bytes> {
        let object = self.0.lock().unwrap();
        let (start, end) = (range.start as usize, range.end as usize);
        if end > object.len() {
            return Err(Error::new(ErrorKind::Corrupt, "it ends before"));
        }
        Ok(object.slice(start..end))
    }
}

struct Bench {
    runtime: Runtime,
    store: Arc<One>,
    pipeline: Pipeline,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

fn bench() -> Bench {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Arc::new(One::default());
    let config = PipelineConfig {
        memory_limit: 8 << 20,
        frame_bytes: FRAME,
        part_bytes: FRAME,
        threads: 1,
        depth: 0,
        ..PipelineConfig::default()
    };
    let _guard = runtime.enter();
    let pipeline =
        Pipeline::for_restore(config, 1, Arc::clone(&store) as _, SystemClock::shared()).expect("the memory suffices");
    drop(_guard);
    Bench { runtime, store, pipeline }
}

/// Restores, and answers what was delivered before the end or the error.
fn restore(bench: &Bench, object: Vec<u8>, segment: SegmentSummary) -> (Vec<u8>, Option<Error>) {
    *bench.store.0.lock().unwrap() = object.into();
    let (raw_bytes, stored_bytes) = (segment.raw_bytes, segment.stored_bytes);
    let summary = StripeSummary { raw_bytes, stored_bytes, segments: vec![segment] };
    bench.runtime.block_on(async {
        let mut delivered = Vec::new();
        let mut error = None;
        {
            let mut frames = std::pin::pin!(bench.pipeline.restore_stripe(0, &summary));
            while let Some(frame) = frames.next().await {
                match frame {
                    Ok(bytes) => delivered.extend_from_slice(&bytes),
                    Err(failed) => error = Some(failed),
                }
            }
        }
        bench.pipeline.wait_idle().await;
        (delivered, error)
    })
}

fuzz_target!(|bytes: &[u8]| {
    let [first, rest @ ..] = bytes else { return };
    BENCH.with_borrow_mut(|place| {
        let bench = place.get_or_insert_with(bench);
        let (content, stored) = if first % 2 == 0 {
            // A frame of the fuzzer's own, said to have the content of a true one.
            (vec![*first; usize::from(*first) + 1], rest.to_vec())
        } else {
            // A true frame of the fuzzer's own content, changed in a few places.
            let (changes, content) = rest.split_at(rest.len().min(usize::from(first / 2 % 8) * 3));
            let content = if content.is_empty() { vec![0; FRAME] } else { content.to_vec() };
            let mut stored = zstd::bulk::compress(&content, 3).expect("it compresses");
            for change in changes.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % stored.len();
                stored[at] ^= change[2];
            }
            (content, stored)
        };
        let entry = (stored.len() as u32, content.len() as u32, *blake3::hash(&content).as_bytes());
        let (object, summary) = forged_segment(FRAME as u32, &[entry], &stored);
        let (delivered, error) = restore(bench, object, summary);
        // Never a wrong byte, and no end that says nothing.
        assert!(content.starts_with(&delivered));
        assert_eq!(error.is_none(), delivered.len() == content.len());
        if let Some(error) = error {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report());
        }
    });
});
