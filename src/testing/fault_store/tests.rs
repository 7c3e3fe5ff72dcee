use super::log::Numbers;

#[test]
fn what_no_seed_decides_has_a_number_in_its_place() {
    let mut numbers = Numbers::default();
    let (one, other) = ("0192f0c1-0000-7000-8000-000000000001", "0192f0c1-0000-7000-8000-000000000002");
    let (early, late) = ("20260102T030405.678Z-0123456789abcdef.json", "20260102T030405.678Z-fedcba9876543210.json");
    for (path, normal) in [
        (format!("a/{one}/deleted/{late}"), "a/#0/deleted/#0.json"),
        (format!("a/{one}/deleted/{early}"), "a/#0/deleted/#1.json"),
        (format!("a/{one}/deleted/{late}"), "a/#0/deleted/#0.json"),
        // Each directory has numbers of its own, and none of those of the ids.
        (format!("a/{one}/collected/{early}"), "a/#0/collected/#0.json"),
        (format!("a/{other}/deleted/{early}"), "a/#1/deleted/#0.json"),
        (format!("a/{other}/verified/20260102T030405.678Z.json"), "a/#1/verified/#0.json"),
        (format!("a/{other}/s00/000000.zst"), "a/#1/s00/000000.zst"),
        (format!("a/{other}/manifest.json"), "a/#1/manifest.json"),
        (String::new(), ""),
    ] {
        assert_eq!(numbers.normalise(&path), normal, "{path}");
    }
}
