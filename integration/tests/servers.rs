//! The servers really check what the other tests rely on. A new version of one that stops checking makes itself heard here.

use futures::{StreamExt, TryStreamExt};
use integration::place::{Place, azure, s3};
use integration::server::{AZURE_KEY, Kind, S3_SECRET};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

const SERVERS: [Kind; 3] = Kind::ALL;

fn path(place: &Place, name: &str) -> Path {
    Path::from(format!("{}/{name}", place.prefix()))
}

#[tokio::test]
async fn an_object_comes_back_whole_in_ranges_and_in_lists() {
    for kind in SERVERS {
        let place = Place::server(kind).await;
        let store = place.store();
        let at = path(&place, "a/b");
        store.put(&at, PutPayload::from_static(b"0123456789")).await.unwrap();
        assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "0123456789", "{kind:?}");
        assert_eq!(store.get_range(&at, 3..6).await.unwrap(), "345", "{kind:?}");
        assert_eq!(place.objects().await, ["a/b"], "{kind:?}");
        store.delete(&at).await.unwrap();
        assert!(matches!(store.head(&at).await, Err(Error::NotFound { .. })), "{kind:?}");
        place.assert_empty().await;
    }
}

#[tokio::test]
async fn garage_and_azurite_refuse_a_wrong_key() {
    let wrong_secret = S3_SECRET.replace('0', "1");
    let wrong_key = AZURE_KEY.replacen('E', "F", 1);
    let stores: [Box<dyn ObjectStore>; 2] = [Box::new(s3(Kind::Garage, &wrong_secret)), Box::new(azure(&wrong_key))];
    // With the right key the same call works, so it is the key that is refused.
    let place = Place::server(Kind::Garage).await;
    assert_eq!(place.objects().await, [""; 0]);
    for store in stores {
        let refused = store.get_opts(&Path::from("any"), GetOptions::default()).await;
        let error = refused.expect_err("a wrong key must be refused");
        assert!(
            matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }),
            "{store}: refused for another reason: {error:?}"
        );
    }
}

#[tokio::test]
async fn moto_and_azurite_create_only_once() {
    for kind in [Kind::Moto, Kind::Azurite] {
        let place = Place::server(kind).await;
        let store = place.store();
        let at = path(&place, "once");
        let first = store.put_opts(&at, PutPayload::from_static(b"first"), PutMode::Create.into()).await;
        first.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let second = store.put_opts(&at, PutPayload::from_static(b"second"), PutMode::Create.into()).await;
        assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{kind:?}: {second:?}");
        assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "first", "{kind:?}");
    }
}

#[tokio::test]
async fn one_of_many_creators_wins_on_moto_and_azurite() {
    for kind in [Kind::Moto, Kind::Azurite] {
        let place = Place::server(kind).await;
        let (store, at) = (place.store(), path(&place, "race"));
        let racers = (0..8).map(|n: u8| store.put_opts(&at, vec![n].into(), PutMode::Create.into()));
        let winners = futures::future::join_all(racers).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(winners, 1, "{kind:?}");
    }
}

/// Stores like this exist, and Garage stands for them in the tests of the probe.
#[tokio::test]
async fn garage_ignores_create_only() {
    let place = Place::server(Kind::Garage).await;
    let store = place.store();
    let at = path(&place, "twice");
    for body in [&b"first"[..], b"second"] {
        store.put_opts(&at, PutPayload::from_static(body), PutMode::Create.into()).await.unwrap();
    }
    assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "second");
}

#[tokio::test]
async fn an_unfinished_upload_is_seen_until_it_is_aborted() {
    for kind in [Kind::Garage, Kind::Moto] {
        let place = Place::server(kind).await;
        let (store, at) = (s3(kind, S3_SECRET), path(&place, "half"));
        let id = store.create_multipart(&at).await.unwrap();
        store.put_part(&at, &id, 0, PutPayload::from_static(b"part")).await.unwrap();
        assert_eq!(place.objects().await, [""; 0], "{kind:?}: an unfinished upload is not an object");
        assert_eq!(place.uploads().await, [at.to_string()], "{kind:?}");
        store.abort_multipart(&at, &id).await.unwrap();
        place.assert_empty().await;
    }
}

#[tokio::test]
async fn azurite_lists_blocks_that_were_never_committed() {
    let place = Place::server(Kind::Azurite).await;
    let (store, at) = (azure(AZURE_KEY), path(&place, "half"));
    let id = store.create_multipart(&at).await.unwrap();
    store.put_part(&at, &id, 0, PutPayload::from_static(b"part")).await.unwrap();
    assert_eq!(place.uploads().await, [at.to_string()]);
    assert_eq!(place.objects().await, [""; 0], "uncommitted blocks are not an object");
}

#[tokio::test]
async fn lists_go_on_past_the_first_page() {
    // Garage and moto answer with at most 1000 names at a time.
    let place = Place::server(Kind::Garage).await;
    let store = place.store();
    let paths: Vec<_> = (0..1001).map(|n| path(&place, &format!("{n:04}"))).collect();
    let puts = paths.iter().map(|at| store.put(at, PutPayload::new()));
    futures::stream::iter(puts).buffer_unordered(16).try_for_each(|_| async { Ok(()) }).await.unwrap();
    assert_eq!(place.objects().await.len(), 1001);
    let all = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
    assert_eq!(store.delete_stream(all).try_collect::<Vec<_>>().await.unwrap().len(), 1001);
    place.assert_empty().await;
}
