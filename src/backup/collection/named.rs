//! Which segments a manifest names.

use super::super::manifest::Manifest;
use super::super::names::{Names, ObjectName};

/// Which segments a manifest names; a few numbers, however many there are.
#[derive(Debug)]
pub(super) struct Named {
    /// They tell who has stored each segment.
    names: Names,
    /// Number of segments of each stripe.
    segments: Vec<usize>,
}

impl Named {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let segments = manifest.stripes.iter().map(|stripe| stripe.segments.len()).collect();
        Self { names: manifest.names(), segments }
    }

    /// True if `object` is a segment and not one of these.
    pub(super) fn lacks(&self, object: &ObjectName) -> bool {
        let Some((segment, _)) = object.as_segment() else { return false };
        let count = self.segments.get(usize::from(segment.stripe)).copied().unwrap_or(0);
        segment.index as usize >= count || self.names.segment(segment) != self.names.of(object)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::manifest::tests::{manifest, stripe};
    use super::super::super::writers::Writers;
    use super::*;
    use crate::pipeline::SegmentId;

    #[test]
    fn a_manifest_names_one_object_for_each_of_its_segments() {
        let mut manifest = manifest(vec![stripe(&[(5, 5), (5, 5)]), stripe(&[])]);
        manifest.writers = Writers::of_segments([vec![0, 2], vec![]]);
        let named = Named::of(&manifest);
        let object = |stripe, index, claim| ObjectName::segment(SegmentId { stripe, index }, claim, false);
        for (object, is_lacking) in [
            (object(0, 0, 0), false),
            (object(0, 1, 2), false),
            (object(0, 0, 2), true),
            (object(0, 1, 0), true),
            (object(0, 1, 4), true),
            (object(0, 2, 0), true),
            (object(1, 0, 0), true),
            (object(2, 0, 0), true),
            (ObjectName::Sealed(SegmentId { stripe: 0, index: 0 }), true),
            (ObjectName::Intent, false),
            (ObjectName::Manifest, false),
            (ObjectName::Claim(2), false),
            (ObjectName::Partial, false),
        ] {
            assert_eq!(named.lacks(&object), is_lacking, "{object}");
        }
    }
}
