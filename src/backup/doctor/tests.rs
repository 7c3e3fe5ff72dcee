use super::*;
use crate::backup::Store;

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
    assert!(store.list("").await.unwrap().is_empty());
    assert_eq!(diagnosis.findings.len(), 11, "each check once");
}

#[test]
fn permissions_are_in_the_words_of_the_store() {
    assert_eq!(Check::AbortMultipart.permission("s3"), "s3:AbortMultipartUpload");
    assert_eq!(Check::List.permission("gs"), "storage.objects.list");
    assert_eq!(Check::Create.permission("memory"), "");
}
