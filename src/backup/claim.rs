//! Claims: who may go on with a backup that is not committed.
//!
//! They are numbered from 1 without a gap and created only where there is none, so each number has one owner. The process
//! that began the backup has none; its claim is said to be 0.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::document::{self, MAX_SMALL_BYTES, corrupt};
use super::id::BackupId;
use super::names::{MAX_CLAIMS, MAX_STRIPES, Names, ObjectName};
use super::options::{TOOL, host};
use super::store::Store;
use super::writers::{Run, Writers};
use crate::error::Result;

/// The `format` member of a claim.
const CLAIM: &str = "vdstream-claim";

/// What the owner of a claim does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    /// It resumes the backup, and looks what is stored. It writes nothing yet.
    Resume,
    /// It has looked, keeps what the claim says, and stores what follows under names that have the number of this claim.
    Continue,
    /// The owner of the claim before has ended in good order. Anybody may resume the backup at once.
    Release,
    /// It removes everything. Nobody may resume the backup any more.
    Remove,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) id: BackupId,
    pub(crate) number: u32,
    pub(crate) purpose: Purpose,
    /// Drawn at random, so that no two processes write the same claim.
    pub(crate) owner: String,
    pub(crate) created: Timestamp,
    pub(crate) tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Of one that continues: what it keeps of each stripe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) kept: Vec<Vec<Run>>,
}

impl Claim {
    pub(crate) fn new(store: &Store, names: &Names, number: u32, purpose: Purpose) -> Self {
        Self {
            id: names.id(),
            number,
            purpose,
            owner: Uuid::new_v4().simple().to_string(),
            created: store.time().wall(),
            tool: TOOL.to_owned(),
            host: host(),
            kept: Vec::new(),
        }
    }

    /// Writes it. `Conflict` if somebody else has the number.
    pub(crate) async fn write(&self, store: &Store, names: &Names) -> Result<()> {
        store.create(&names.of(&ObjectName::Claim(self.number)), self.encode()?.into()).await
    }

    /// Reads one, and checks that it is the one that its name says.
    pub(crate) async fn read(store: &Store, names: &Names, number: u32) -> Result<Self> {
        let name = names.of(&ObjectName::Claim(number));
        let object = store.show(&name);
        let claim = Self::decode(&store.read_small(&name, MAX_SMALL_BYTES).await?, &object)?;
        if (claim.id, claim.number) != (names.id(), number) {
            let expected = format!("{number} of {}", names.id());
            let found = format!("{} of {}", claim.number, claim.id);
            return Err(corrupt(&object, "claim", expected, found));
        }
        Ok(claim)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        document::encode_small(CLAIM, self)
    }

    pub(crate) fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        let claim: Self = document::decode_small(CLAIM, bytes, object)?;
        if !(1..=MAX_CLAIMS).contains(&claim.number) {
            return Err(corrupt(object, "number", format!("1 to {MAX_CLAIMS}"), claim.number));
        }
        let (stripes, most) = (claim.kept.len(), usize::from(MAX_STRIPES));
        if stripes > most || (claim.purpose == Purpose::Continue) != (stripes > 0) {
            return Err(corrupt(object, "kept", format!("1 to {most} stripes if it continues, else none"), stripes));
        }
        if !Writers::are_sound(&claim.kept, claim.number) {
            return Err(corrupt(object, "kept", "rising claims before this one", "others"));
        }
        Ok(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn claim(purpose: Purpose, kept: Vec<Vec<Run>>) -> Claim {
        let store = Store::memory();
        let names = Names::new(Default::default(), BackupId::generate(store.time().wall()));
        Claim { kept, ..Claim::new(&store, &names, 3, purpose) }
    }

    #[test]
    fn claims_read_back_and_contradictions_are_refused() {
        let kept = vec![vec![Run { claim: 0, segments: 2 }, Run { claim: 2, segments: 1 }], Vec::new()];
        for good in [claim(Purpose::Continue, kept.clone()), claim(Purpose::Release, Vec::new())] {
            assert_eq!(Claim::decode(&good.encode().unwrap(), "x").unwrap(), good);
        }
        let late = vec![vec![Run { claim: 3, segments: 1 }]];
        for bad in [
            claim(Purpose::Continue, Vec::new()),
            claim(Purpose::Remove, kept.clone()),
            claim(Purpose::Continue, vec![Vec::new(); 65]),
            claim(Purpose::Continue, late),
            Claim { number: 0, ..claim(Purpose::Resume, Vec::new()) },
            Claim { number: MAX_CLAIMS + 1, ..claim(Purpose::Resume, Vec::new()) },
        ] {
            let error = Claim::decode(&bad.encode().unwrap(), "x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_number_has_one_owner() {
        let store = Store::memory();
        let names = Names::new(Default::default(), BackupId::generate(store.time().wall()));
        let new = || Claim::new(&store, &names, 1, Purpose::Resume);
        let (first, second) = (new(), new());
        first.write(&store, &names).await.unwrap();
        first.write(&store, &names).await.unwrap();
        assert_eq!(second.write(&store, &names).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(Claim::read(&store, &names, 1).await.unwrap(), first);
        store.create(&names.of(&ObjectName::Claim(2)), first.encode().unwrap().into()).await.unwrap();
        assert_eq!(Claim::read(&store, &names, 2).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
