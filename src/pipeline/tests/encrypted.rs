//! Encrypted segments: files that age itself reads, damage that is found, keys that fit and keys that do not.

use std::io::{Read as _, Write as _};

use age_core::secrecy::ExposeSecret as _;
use bytes::BytesMut;

use super::store::{Fault, MemoryStore, Op};
use super::*;
use crate::ErrorKind;
use crate::pipeline::encrypt::chunk::{CHUNK_BYTES, SEALED_BYTES, TAG_BYTES};
use crate::pipeline::{
    Identities, Recipients, SegmentHeader, SegmentId, SegmentSummary, unwrap_identity, wrap_identity,
};

const FRAME: usize = 64 * KIB;
const FIRST: SegmentId = SegmentId { stripe: 0, index: 0 };

/// A private key, as its file, and its public key.
fn key() -> (age::x25519::Identity, String) {
    let identity = age::x25519::Identity::generate();
    let public = identity.to_public().to_string();
    (identity, public)
}

fn recipients(keys: &[&str]) -> Recipients {
    let mut recipients = Recipients::new();
    for key in keys {
        recipients.add(key).unwrap();
    }
    recipients
}

fn identities(key: &age::x25519::Identity) -> Identities {
    let mut identities = Identities::new();
    identities.add_file(key.to_string().expose_secret().as_bytes(), None).unwrap();
    identities
}

fn sealing(config: PipelineConfig, stripes: u16, store: &MemoryStore, recipients: &Recipients) -> Pipeline {
    let (store, clock) = (Arc::new(store.clone()), SystemClock::shared());
    Pipeline::for_encrypted_backup(config, stripes, store, clock, recipients.clone()).unwrap()
}

fn opening(config: PipelineConfig, stripes: u16, store: &MemoryStore, identities: &Identities) -> Pipeline {
    let (store, clock) = (Arc::new(store.clone()), SystemClock::shared());
    Pipeline::for_encrypted_restore(config, stripes, store, clock, identities.clone()).unwrap()
}

async fn stored(config: PipelineConfig, bytes: &Bytes, recipients: &Recipients) -> (MemoryStore, StripeSummary) {
    let store = MemoryStore::new();
    let pipeline = sealing(config, 1, &store, recipients);
    let summary = pipeline.backup_stripe(0, pieces(bytes, FRAME)).await.unwrap();
    assert_idle(&pipeline, &store).await;
    (store, summary)
}

/// What `age -d` would print.
fn age_decrypt(file: &[u8], key: &age::x25519::Identity) -> Vec<u8> {
    let mut content = Vec::new();
    let decryptor = age::Decryptor::new(file).unwrap();
    let mut reader = decryptor.decrypt(std::iter::once(key as &dyn age::Identity)).unwrap();
    reader.read_to_end(&mut content).unwrap();
    content
}

#[tokio::test]
async fn every_size_comes_back_and_age_and_zstd_read_it_too() {
    let (key, public) = key();
    let recipients = recipients(&[&public]);
    // Noise does not shrink, so that the sizes of the content pass the edges of chunks and of parts.
    let noise = data(6 << 20, 77).chunks(16).flat_map(|line| line[..8].to_vec()).collect::<Vec<u8>>();
    let edges = [1, CHUNK_BYTES, SEALED_BYTES, 3 * SEALED_BYTES, 1 << 20];
    for part_bytes in [64 * KIB, 128 * KIB, 1 << 20] {
        for segment_bytes in [1, 1 << 30] {
            let config = PipelineConfig { part_bytes, segment_bytes, ..small() };
            for len in edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]) {
                let bytes = Bytes::copy_from_slice(&noise[..len]);
                let (store, summary) = stored(config.clone(), &bytes, &recipients).await;
                let what = format!("{len} bytes, parts of {part_bytes}, segments of {segment_bytes}");

                let mut raw = Vec::new();
                for (object, segment) in store.objects(0).iter().zip(&summary.segments) {
                    let content = age_decrypt(object, &key);
                    zstd::stream::copy_decode(&content[..], &mut raw).unwrap();
                    assert_eq!(blake3::hash(object), segment.stored_hash, "{what}");
                    assert_eq!(object.len() as u64, segment.stored_bytes, "{what}");
                }
                assert_eq!(raw, bytes, "age and zstd: {what}");

                let back = opening(config.clone(), 1, &store, &identities(&key));
                assert_eq!(restore(&back, 0, &summary).await.unwrap(), bytes, "{what}");
                assert_idle(&back, &store).await;
            }
        }
    }
}

/// Content lengths at which the last chunk is short, full, or a byte longer, in every place of a part.
#[tokio::test]
async fn every_length_of_the_last_chunk_is_sealed_as_age_seals_it() {
    let (key, public) = key();
    let recipients = recipients(&[&public]);
    let config = PipelineConfig { part_bytes: 128 * KIB, ..small() };
    let noise = data(400 * KIB, 5).chunks(16).flat_map(|line| line[..8].to_vec()).collect::<Vec<u8>>();
    for chunks in 1..=2 {
        let full = chunks * CHUNK_BYTES;
        // The content is a little longer than the noise, by headers of frames and the tail.
        let mut overhead = 200;
        for (nth, end) in [full, full - 1, full, full + 1, full + 2].into_iter().enumerate() {
            let bytes = Bytes::copy_from_slice(&noise[..end - overhead]);
            let (store, summary) = stored(config.clone(), &bytes, &recipients).await;
            let content = age_decrypt(&store.objects(0)[0], &key);
            if nth == 0 {
                overhead = content.len() - bytes.len();
            } else {
                assert_eq!(content.len(), end, "the edge was missed");
            }
            assert_eq!(zstd::decode_all(&content[..]).unwrap(), bytes, "{end}");
            let back = opening(config.clone(), 1, &store, &identities(&key));
            assert_eq!(restore(&back, 0, &summary).await.unwrap(), bytes, "{end}");
        }
    }
}

#[tokio::test]
async fn stripes_and_retries_change_nothing() {
    let (key, public) = key();
    let recipients = recipients(&[&public]);
    let config = PipelineConfig { backoff_base: std::time::Duration::from_millis(1), ..small() };
    // Every third attempt of anything fails, some after it had its effect.
    let store = MemoryStore::with_faults(|_, op, before| match (op, before) {
        (Op::Part(index), 0) if index % 2 == 0 => Some(Fault::LostAnswer),
        (Op::Read | Op::Begin, 0) => Some(Fault::Fail(ErrorKind::Unavailable)),
        _ => None,
    });
    let pipeline = sealing(config.clone(), 3, &store, &recipients);
    let inputs: Vec<Bytes> = (0..3).map(|stripe| data(700 * KIB + stripe, stripe as u64 + 1)).collect();
    let runs = (0..3_u16).map(|stripe| pipeline.backup_stripe(stripe, pieces(&inputs[usize::from(stripe)], FRAME)));
    let summaries = futures::future::try_join_all(runs).await.unwrap();
    let back = opening(config, 3, &store, &identities(&key));
    for (stripe, summary) in (0..3).zip(&summaries) {
        assert_eq!(restore(&back, stripe, summary).await.unwrap(), inputs[usize::from(stripe)]);
    }
    assert!(pipeline.budget().peak() <= 64 << 20);
}

/// Restores from a replaced first object: the content or a prefix of it and an error.
async fn restore_damaged(
    summary: &StripeSummary,
    object: Bytes,
    bytes: &Bytes,
    key: &Identities,
) -> std::result::Result<(), crate::Error> {
    let store = MemoryStore::new();
    store.state.objects.lock().insert(FIRST, object);
    let back = opening(small(), 1, &store, key);
    let mut out = Vec::new();
    let mut outcome = Ok(());
    let mut frames = Box::pin(back.restore_stripe(0, summary));
    while let Some(frame) = frames.next().await {
        assert!(outcome.is_ok(), "nothing follows an error");
        match frame {
            Ok(frame) => out.extend_from_slice(&frame),
            Err(error) => outcome = Err(error),
        }
    }
    assert!(bytes.starts_with(&out), "a wrong byte was handed out");
    drop(frames);
    assert_idle(&back, &store).await;
    outcome
}

#[tokio::test]
async fn every_flipped_byte_is_found_and_says_where() {
    let (key, public) = key();
    let bytes = data(3000, 3);
    let (store, summary) = stored(small(), &bytes, &recipients(&[&public])).await;
    let object = store.objects(0).remove(0);
    for index in 0..object.len() {
        for mask in [0xff, 0x01] {
            let mut damaged = BytesMut::from(&object[..]);
            damaged[index] ^= mask;
            let outcome = restore_damaged(&summary, damaged.freeze(), &bytes, &identities(&key)).await;
            let error = outcome.expect_err("damage passed");
            // Never a wrong key: the manifest knows the header.
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {index}: {error:?}");
            assert!(error.report().contains("stripe 0 segment 0, offset "), "{error:?}");
        }
    }
}

#[tokio::test]
async fn damage_in_any_chunk_of_a_segment_of_many_ranges_is_found() {
    let (key, public) = key();
    let bytes = data(30 * FRAME, 8);
    let (store, summary) = stored(small(), &bytes, &recipients(&[&public])).await;
    let object = store.objects(0).remove(0);
    assert!(object.len() > 700 * KIB, "read in ranges");
    let header = summary.segments[0].header.unwrap().bytes as usize;
    let chunks = (header..object.len()).step_by(3 * SEALED_BYTES);
    for index in
        chunks.flat_map(|start| [start, start + TAG_BYTES, start + CHUNK_BYTES]).filter(|at| *at < object.len())
    {
        let mut damaged = BytesMut::from(&object[..]);
        damaged[index] ^= 0x80;
        let error = restore_damaged(&summary, damaged.freeze(), &bytes, &identities(&key)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {index}: {error:?}");
    }
}

#[tokio::test]
async fn cuts_and_moves_at_the_edges_of_chunks_are_found() {
    let (key, public) = key();
    let bytes = data(30 * FRAME, 8);
    let (store, summary) = stored(small(), &bytes, &recipients(&[&public])).await;
    let object = store.objects(0).remove(0);
    let header = summary.segments[0].header.unwrap().bytes as usize;
    let payload = object.len() - header;
    let count = payload.div_ceil(SEALED_BYTES);
    for edge in (0..=count).map(|chunk| header + payload.min(chunk * SEALED_BYTES)) {
        for len in [edge.saturating_sub(1), edge, edge + 1].into_iter().filter(|len| *len < object.len()) {
            let error = restore_damaged(&summary, object.slice(..len), &bytes, &identities(&key)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {len}: {error:?}");
        }
    }
    for len in [0, 1, header - 1, header, header + 1] {
        restore_damaged(&summary, object.slice(..len), &bytes, &identities(&key)).await.unwrap_err();
    }
    // Two chunks change places.
    let mut swapped = BytesMut::from(&object[..]);
    let (first, second) = swapped[header..].split_at_mut(SEALED_BYTES);
    first.swap_with_slice(&mut second[..SEALED_BYTES]);
    let error = restore_damaged(&summary, swapped.freeze(), &bytes, &identities(&key)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// A file that somebody cut and described anew: the summary fits, the mark on the last chunk does not.
#[tokio::test]
async fn a_cut_that_the_summary_agrees_with_is_found() {
    let (key, public) = key();
    let bytes = data(30 * FRAME, 8);
    let (store, summary) = stored(small(), &bytes, &recipients(&[&public])).await;
    let object = store.objects(0).remove(0);
    let header = summary.segments[0].header.unwrap().bytes as usize;
    let cut = object.slice(..header + 7 * SEALED_BYTES);
    let mut forged = summary.clone();
    forged.segments[0].stored_bytes = cut.len() as u64;
    forged.stored_bytes = cut.len() as u64;
    let error = restore_damaged(&forged, cut, &bytes, &identities(&key)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_wrong_and_a_missing_key_have_their_own_error() {
    let (one, public) = key();
    let (other, _) = key();
    let bytes = data(1000, 1);
    let (store, summary) = stored(small(), &bytes, &recipients(&[&public])).await;
    for wrong in [identities(&other), Identities::new()] {
        let error = restore(&opening(small(), 1, &store, &wrong), 0, &summary).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    }
    let before = store.count(|_| true);
    let error = restore(&restore_pipeline(small(), 1, &store), 0, &summary).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert_eq!(store.count(|_| true), before, "nothing is read without a key");
    let mut both = identities(&other);
    both.extend(&identities(&one));
    assert_eq!(restore(&opening(small(), 1, &store, &both), 0, &summary).await.unwrap(), bytes);
}

#[tokio::test]
async fn each_of_several_recipients_and_the_passphrase_opens_it() {
    let keys: Vec<_> = (0..3).map(|_| key()).collect();
    let publics: Vec<&str> = keys.iter().map(|(_, public)| public.as_str()).collect();
    let passphrase = crate::pipeline::Passphrase::new("correct horse").unwrap();
    let (all, file) = wrap_identity(&recipients(&publics), &passphrase, 0).unwrap();
    assert_eq!(all.len(), 4);
    let bytes = data(300 * KIB, 1);
    let (store, summary) = stored(small(), &bytes, &all).await;
    let mut openers: Vec<Identities> = keys.iter().map(|(key, _)| identities(key)).collect();
    openers.push(unwrap_identity(&file, &passphrase).unwrap());
    for opener in openers {
        assert_eq!(restore(&opening(small(), 1, &store, &opener), 0, &summary).await.unwrap(), bytes);
    }
    let wrong = crate::pipeline::Passphrase::new("wrong").unwrap();
    assert_eq!(unwrap_identity(&file, &wrong).unwrap_err().kind(), ErrorKind::Locked);
    for index in (0..file.len()).step_by(7) {
        let mut damaged = file.clone();
        damaged[index] ^= 0x20;
        assert!(unwrap_identity(&damaged, &passphrase).is_err(), "byte {index}");
    }
}

#[tokio::test]
async fn the_summary_tells_nothing_of_the_content() {
    let (_, public) = key();
    let recipients = recipients(&[&public]);
    let bytes = data(200 * KIB, 1);
    let (first, one) = stored(small(), &bytes, &recipients).await;
    let (second, two) = stored(small(), &bytes, &recipients).await;
    let (one, two) = (&one.segments[0], &two.segments[0]);
    assert_ne!(one.raw_hash, blake3::hash(&bytes), "a guess of the content could be confirmed");
    assert_ne!(one.raw_hash, two.raw_hash, "equal content could be seen");
    assert_ne!(one.stored_hash, two.stored_hash);
    // Not one block of the two objects is the same.
    let blocks = |store: &MemoryStore, from: u32| -> std::collections::HashSet<Vec<u8>> {
        store.objects(0)[0][from as usize..].chunks_exact(16).map(<[u8]>::to_vec).collect()
    };
    let header = |segment: &SegmentSummary| segment.header.unwrap().bytes;
    assert!(blocks(&first, header(one)).is_disjoint(&blocks(&second, header(two))));
}

/// Another segment with a valid header and chunks of its own, in the place of this one.
#[tokio::test]
async fn a_replayed_segment_is_found_even_with_its_own_header_described() {
    let (key, public) = key();
    let recipients = recipients(&[&public]);
    let (mine, theirs) = (data(200 * KIB, 1), data(200 * KIB, 2));
    let (_, summary) = stored(small(), &mine, &recipients).await;
    let (other, replayed) = stored(small(), &theirs, &recipients).await;
    let object = other.objects(0).remove(0);
    let error = restore_damaged(&summary, object.clone(), &mine, &identities(&key)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // Everything of the other is described but the hash of the content.
    let mut forged = replayed.clone();
    forged.segments[0].raw_hash = summary.segments[0].raw_hash;
    let error = restore_damaged(&forged, object, &mine, &identities(&key)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn hostile_headers_are_refused_without_a_read() {
    let (key, public) = key();
    let (store, good) = stored(small(), &data(1000, 1), &recipients(&[&public])).await;
    let header = good.segments[0].header.unwrap();
    for bytes in [0, header.bytes + good.segments[0].stored_bytes as u32, (64 << 10) + 1, u32::MAX] {
        let mut summary = good.clone();
        summary.segments[0].header = Some(SegmentHeader { bytes, ..header });
        let back = opening(small(), 1, &store, &identities(&key));
        let error = restore(&back, 0, &summary).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bytes}");
        assert_eq!(back.progress().requests, 0);
    }
}

/// The file is age's own work, with other sizes of writes: it is read like one of ours.
#[tokio::test]
async fn a_segment_that_age_encrypted_is_read() {
    let (key, _) = key();
    let bytes = data(500 * KIB, 4);
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(small(), 1, &store);
    let mut summary = pipeline.backup_stripe(0, pieces(&bytes, FRAME)).await.unwrap();
    let content = store.objects(0).remove(0);

    let recipient = key.to_public();
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
    let mut file = Vec::new();
    let mut writer = encryptor.wrap_output(&mut file).unwrap();
    for piece in content.chunks(1000) {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap();
    let end = file.windows(4).position(|window| window == b"--- ").unwrap();
    let header = end + file[end..].iter().position(|byte| *byte == b'\n').unwrap() + 1 + 16;
    let cipher = identities(&key).open(&file[..header]).unwrap();
    let segment = &mut summary.segments[0];
    segment.header = Some(SegmentHeader { bytes: header as u32, hash: blake3::hash(&file[..header]) });
    segment.raw_hash = cipher.commit(segment.raw_hash);
    segment.stored_bytes = file.len() as u64;
    summary.stored_bytes = file.len() as u64;

    let theirs = MemoryStore::new();
    theirs.state.objects.lock().insert(FIRST, file.into());
    assert_eq!(restore(&opening(small(), 1, &theirs, &identities(&key)), 0, &summary).await.unwrap(), bytes);
}

#[test]
fn what_is_no_key_is_refused_without_repeating_it() {
    let (key, _) = key();
    let secret = key.to_string();
    let secret = secret.expose_secret();
    let mut recipients = Recipients::new();
    for text in ["", "age1", "age1qqqq", secret, "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-dss AAAA", "ssh-rsa AAAA"]
    {
        let error = recipients.add(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(text.len() < 9 || !error.report().contains(text), "{error:?}");
    }
    assert_eq!(recipients.add_lines("# nobody\n\n").unwrap_err().kind(), ErrorKind::Invalid);
    let mut identities = Identities::new();
    let truncated = &secret[..secret.len() - 3];
    for file in [
        "",
        "# nobody\n",
        truncated,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
        "age-encryption.org/v1\nx",
        "\u{e9}",
    ] {
        let passphrase = crate::pipeline::Passphrase::new("x").unwrap();
        let error = identities.add_file(file.as_bytes(), Some(&passphrase)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{file}: {error:?}");
        assert!(!error.report().contains(&truncated[15..]), "{error:?}");
    }
    assert_eq!(format!("{recipients:?} {identities:?}"), "Recipients { len: 0, .. } Identities { len: 0, .. }");
}
