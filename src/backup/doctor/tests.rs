use std::time::Duration;

use super::check::Given;
use super::*;
use crate::backup::Store;
use crate::clock::timeout;
use crate::testing::fault_store::Operation;
use crate::testing::{Fault, FaultStore, Rule};

fn verdict(diagnosis: &Diagnosis, check: Check) -> Verdict {
    diagnosis.findings.iter().find(|finding| finding.check == check).unwrap().verdict
}

#[tokio::test]
async fn a_store_that_works_is_good_and_is_left_as_it_was() {
    let store = Store::memory();
    let diagnosis = examine(&store).await;
    assert!(diagnosis.is_good() && diagnosis.first_error().is_none(), "{diagnosis:?}");
    for check in [Check::List, Check::Create, Check::CreateOnly, Check::Read, Check::Multipart, Check::Delete] {
        assert_eq!(verdict(&diagnosis, check), Verdict::Good, "{check}");
    }
    assert_eq!(verdict(&diagnosis, Check::UploadRule), Verdict::Skipped);
    assert_eq!(verdict(&diagnosis, Check::Versions), Verdict::Skipped);
    assert!(store.list("").await.unwrap().is_empty());
    assert_eq!(diagnosis.findings.len(), 12, "each check once");
}

#[test]
fn permissions_are_in_the_words_of_the_store() {
    assert_eq!(Check::AbortMultipart.permission("s3"), "s3:AbortMultipartUpload");
    assert_eq!(Check::List.permission("gs"), "storage.objects.list");
    assert_eq!(Check::Create.permission("memory"), "");
    let uploads = Check::Multipart.permission("gs");
    assert_eq!(
        uploads, "storage.multipartUploads.create, storage.objects.create",
        "beginning one is a permission there"
    );
}

#[test]
fn tags_and_keys_need_permissions_of_their_own_on_s3() {
    let both = Given { tags: true, service_key: true };
    let of = |check: Check, given| check.permissions("s3", given);
    let tags = Given { tags: true, ..Given::default() };
    assert_eq!(of(Check::Create, Given::default()), "s3:PutObject");
    assert_eq!(of(Check::Create, tags), "s3:PutObject, s3:PutObjectTagging");
    assert_eq!(of(Check::Create, both), "s3:PutObject, s3:PutObjectTagging, kms:GenerateDataKey");
    assert_eq!(of(Check::CreateOnly, tags), "s3:PutObject, s3:PutObjectTagging");
    assert_eq!(of(Check::Multipart, both), "s3:PutObject, s3:PutObjectTagging, kms:GenerateDataKey, kms:Decrypt");
    assert_eq!(of(Check::Read, both), "s3:GetObject, kms:Decrypt");
    assert_eq!(of(Check::LookUp, both), "s3:GetObject");
    assert_eq!(Check::Create.permissions("memory", both), "");
}

#[tokio::test]
async fn an_upload_that_cannot_begin_is_not_one_that_cannot_be_given_up() {
    for (refused, expected) in [
        (Operation::Begin, [Verdict::Failed, Verdict::Skipped]),
        (Operation::Part, [Verdict::Failed, Verdict::Good]),
        (Operation::Complete, [Verdict::Failed, Verdict::Good]),
        (Operation::Abort, [Verdict::Good, Verdict::Failed]),
    ] {
        let faults = FaultStore::memory(1).rule(Rule::new(Fault::Denied).on(refused));
        let diagnosis = examine(&faults.store()).await;
        let found = [Check::Multipart, Check::AbortMultipart].map(|check| verdict(&diagnosis, check));
        assert_eq!(found, expected, "{refused:?}");
        let bad = diagnosis.findings.iter().filter(|finding| finding.verdict == Verdict::Failed);
        assert_eq!(bad.count(), 1, "{refused:?}: {diagnosis:?}");
    }
}

/// The worst moment is that in which an upload is begun, because nobody knows its name yet.
#[tokio::test(start_paused = true)]
async fn an_examination_that_is_given_up_leaves_nothing() {
    for slow in [Operation::Put, Operation::Begin, Operation::Part, Operation::Complete, Operation::Abort] {
        let faults = FaultStore::memory(1).rule(Rule::new(Fault::Latency(Duration::from_secs(10))).on(slow));
        let store = faults.store();
        let given_up = timeout(store.time().as_ref(), Some(Duration::from_secs(1)), examine(&store)).await;
        given_up.expect_err("it was given up");
        store.wait_idle().await;
        assert_eq!(faults.open_uploads(), 0, "{slow:?}");
        assert!(store.list("").await.unwrap().is_empty(), "{slow:?}");
        assert!(store.take_leftovers().is_none(), "{slow:?}");
        let begun = faults.log().iter().filter(|entry| entry.operation == Operation::Begin).count();
        assert_eq!(
            begun,
            if slow == Operation::Put { 0 } else { 1 + usize::from(slow == Operation::Abort) },
            "{slow:?}"
        );
    }
}
