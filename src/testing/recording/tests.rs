use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::*;
use crate::testing::{Bucket, Contents, Effect, SimClock};

fn recorded() -> (RecordingStore, Bucket) {
    let bucket = Bucket::new(Contents::default(), SimClock::new().shared());
    let objects: Arc<dyn ObjectStore> = Arc::new(bucket.clone());
    (RecordingStore::new(objects, Arc::new(bucket.clone())), bucket)
}

const AT: Timestamp = Timestamp::UNIX_EPOCH;

/// Everything that a store is asked for, once.
async fn work(store: &RecordingStore) {
    let (a, b) = (Path::from("x/a"), Path::from("x/b"));
    let create = || PutOptions::from(PutMode::Create);
    store.put_opts(&a, "1".into(), create()).await.unwrap();
    store.put_opts(&a, "2".into(), create()).await.unwrap_err();
    let upload = store.create_multipart(&b).await.unwrap();
    let first = store.put_part(&b, &upload, 0, "he".into()).await.unwrap();
    let second = store.put_part(&b, &upload, 1, "y".into()).await.unwrap();
    store.complete_multipart(&b, &upload, vec![first, second]).await.unwrap();
    assert_eq!(store.get(&b).await.unwrap().bytes().await.unwrap(), "hey");
    let other = store.create_multipart(&a).await.unwrap();
    store.put_part(&a, &other, 0, "gone".into()).await.unwrap();
    store.abort_multipart(&a, &other).await.unwrap();
    assert_eq!(store.list(None).collect::<Vec<_>>().await.len(), 2);
    store.delete(&a).await.unwrap();
    store.delete(&a).await.unwrap_err();
}

#[tokio::test]
async fn the_whole_log_rebuilds_the_bucket_and_each_prefix_what_was_there_then() {
    let (store, bucket) = recorded();
    work(&store).await;
    let log = store.log();
    assert_eq!(log.rebuild(&Contents::default(), log.len(), AT), bucket.contents());
    assert_eq!(log.rebuild(&Contents::default(), 0, AT), Contents::default());
    // Replayed beside the real thing: after each request the two are the same.
    let (again, bucket) = recorded();
    let mut states = vec![bucket.contents()];
    let recorded = async {
        work(&again).await;
    };
    tokio::pin!(recorded);
    std::future::poll_fn(|cx| {
        let ready = recorded.as_mut().poll(cx);
        states.push(bucket.contents());
        ready
    })
    .await;
    for state in states {
        let found = (0..=log.len()).any(|events| log.rebuild(&Contents::default(), events, AT) == state);
        assert!(found, "{state:?} is in no prefix");
    }
}

#[tokio::test]
async fn a_request_in_flight_may_or_may_not_have_had_its_effect_and_a_refused_one_has_not() {
    let (store, _) = recorded();
    work(&store).await;
    let log = store.log();
    let counts: Vec<usize> =
        (0..=log.len()).map(|events| log.crashes(&Contents::default(), events, AT).len()).collect();
    // Began, ended, and so on: one in flight gives two buckets, except for reads and refusals.
    assert_eq!(counts[..7], [1, 2, 1, 1, 1, 2, 1]);
    assert_eq!(counts.iter().max(), Some(&2));
    let uploads = |events: usize| {
        let crashes = log.crashes(&Contents::default(), events, AT);
        crashes.iter().map(|crash| crash.contents.uploads.len()).collect::<Vec<_>>()
    };
    assert_eq!(uploads(5), [0, 1], "the beginning of the upload is in flight: {:?}", log.events()[4]);
}

#[tokio::test]
async fn requests_at_once_leave_every_subset_and_those_that_collide_every_order() {
    let (store, _) = recorded();
    let store = store.interleaved(1);
    let (a, b) = (Path::from("a"), Path::from("b"));
    let create = || PutOptions::from(PutMode::Create);
    let (one, other, beside) = tokio::join!(
        store.put_opts(&a, "1".into(), create()),
        store.put_opts(&a, "2".into(), create()),
        store.put_opts(&b, "3".into(), create())
    );
    assert!(one.is_ok() != other.is_ok() && beside.is_ok());
    let log = store.log();
    assert!(log.events()[..3].iter().all(|event| matches!(event, Event::Began { .. })), "{:?}", log.events());
    // The one that is refused in the end lost only because the other one came first: `a` is not there, or one or the other; `b` is there
    // or not.
    assert_eq!(log.crashes(&Contents::default(), 3, AT).len(), 6);
    // Once both are answered, it has not been there.
    let answered = log.crashes(&Contents::default(), log.len(), AT);
    assert_eq!(answered.len(), 1);
    let stored = &answered[0].contents.objects["a"].bytes;
    assert_eq!(stored, if one.is_ok() { "1" } else { "2" });

    let put = |object: &str, bytes: &'static str| Event::Began {
        operation: Operation::Change(Effect::Put { object: object.to_owned(), bytes: bytes.into(), create: true }),
    };
    let unanswered = Log::new(vec![put("a", "1"), put("a", "2"), put("b", "3")]);
    assert_eq!(unanswered.crashes(&Contents::default(), 3, AT).len(), 6);
}

#[tokio::test]
async fn on_disk_what_is_not_finished_is_a_file_without_its_name() {
    let (store, _) = recorded();
    work(&store).await;
    let log = store.log();
    let names = |events: usize| {
        let crashes = log.crashes_on_disk(&Contents::default(), events, AT);
        assert!(crashes.iter().all(|crash| crash.contents.uploads.is_empty()));
        crashes.into_iter().flat_map(|crash| crash.contents.objects.into_keys()).collect::<Vec<_>>()
    };
    assert!(names(1).iter().any(|name| name.starts_with("x/a.partial-")), "{:?}", names(1));
    assert!(names(8).iter().any(|name| name.starts_with("x/b.partial-")), "{:?}", names(8));
}

#[test]
fn a_part_in_flight_may_bring_an_aborted_upload_back_until_the_store_does_not_know_it() {
    let upload = || "7".to_owned();
    let change = |effect: Effect| Event::Began { operation: Operation::Change(effect) };
    let part = |index: usize| change(Effect::Part { upload: upload(), index, bytes: "x".into() });
    let ended = |began: usize, outcome: Outcome| Event::Ended { began, outcome };
    let done = || Outcome::Done { upload: None };
    let log = Log::new(vec![
        Event::Began { operation: Operation::Begin { object: "a".to_owned() } },
        ended(0, Outcome::Done { upload: Some(upload()) }),
        part(0),
        ended(2, done()),
        // These two are never answered.
        part(1),
        part(2),
        change(Effect::Abort { upload: upload() }),
        ended(6, done()),
        change(Effect::Abort { upload: upload() }),
        ended(8, Outcome::Refused),
    ]);
    let parts = |events: usize| {
        let aborted = Crash { contents: Contents::default(), note: String::new() };
        let late = log.late_parts(&aborted, events, AT);
        let parts = |crash: &Crash| crash.contents.uploads[&upload()].parts.keys().copied().collect::<Vec<_>>();
        late.iter().map(parts).collect::<Vec<_>>()
    };
    assert!(parts(6).is_empty(), "it is not aborted");
    for events in 7..=9 {
        // The first part was answered before, and went with the upload.
        assert_eq!(parts(events), [vec![1], vec![2], vec![1, 2]], "{events}");
    }
    assert!(parts(10).is_empty(), "the store does not know it any more");
    let open = Crash { contents: log.rebuild(&Contents::default(), 6, AT), note: String::new() };
    assert!(log.late_parts(&open, 7, AT).is_empty(), "it is still there");
}
