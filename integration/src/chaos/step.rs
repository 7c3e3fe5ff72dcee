//! The requests of a backup, by what they do.

use crate::network::Wanted;
use crate::server::Kind;

/// What a request does for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Creates the intent.
    Intent,
    /// Begins a multipart upload; Azure has no such request.
    Begin,
    /// Records it.
    Record,
    /// Stores a part.
    Part,
    /// Makes the parts an object.
    Complete,
    /// Stores a segment that is shorter than a part.
    Segment,
    /// Removes the record.
    Forget,
    /// Commits.
    Manifest,
}

impl Step {
    /// In the order of a backup.
    pub const ALL: [Self; 8] = [
        Self::Intent,
        Self::Begin,
        Self::Record,
        Self::Part,
        Self::Complete,
        Self::Segment,
        Self::Forget,
        Self::Manifest,
    ];

    /// Those that are requests on this server.
    pub fn of(kind: Kind) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |step| kind != Kind::Azurite || *step != Self::Begin)
    }

    /// The request on this server.
    pub fn wanted(self, kind: Kind) -> Wanted {
        let azure = kind == Kind::Azurite;
        match self {
            Self::Intent => Wanted::new("PUT", &["/intent.json"]),
            Self::Begin => Wanted::new("POST", &["?uploads"]),
            Self::Record => Wanted::new("PUT", &["/uploads/"]),
            Self::Part if azure => Wanted::new("PUT", &[".zst", "comp=block"]).without("comp=blocklist"),
            Self::Part => Wanted::new("PUT", &[".zst", "partNumber"]),
            Self::Complete if azure => Wanted::new("PUT", &[".zst", "comp=blocklist"]),
            Self::Complete => Wanted::new("POST", &[".zst", "uploadId"]),
            Self::Segment => Wanted::new("PUT", &[".zst"]).without("comp=").without("partNumber"),
            // Deletions go in batches; while nothing fails, a record is all that is deleted.
            Self::Forget if azure => Wanted::new("POST", &["comp=batch"]),
            Self::Forget => Wanted::new("POST", &["?delete"]),
            Self::Manifest => Wanted::new("PUT", &["/manifest.json"]),
        }
    }
}
