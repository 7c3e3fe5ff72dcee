//! Bodies of reads that are not what the store sent.

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::{GetResult, GetResultPayload, Result};

use super::rule::Fault;

/// `found` with another body. `random` decides the byte that is wrong.
pub(super) async fn spoil(found: GetResult, fault: Fault, random: u64) -> Result<GetResult> {
    let (meta, range, attributes, extensions) =
        (found.meta.clone(), found.range.clone(), found.attributes.clone(), found.extensions.clone());
    let mut body = found.bytes().await?.to_vec();
    let half = body.len() / 2;
    let mut pieces: Vec<Result<Bytes>> = Vec::new();
    match fault {
        Fault::Truncated => body.truncate(half),
        Fault::CutBody => body.truncate(half),
        Fault::WrongBytes if !body.is_empty() => {
            let length = body.len() as u64;
            let at = usize::try_from(random % length).unwrap_or(0);
            body[at] ^= 1 << (random >> 61);
        }
        _ => {}
    }
    pieces.push(Ok(body.into()));
    if fault == Fault::CutBody {
        pieces.extend(Fault::Reset.error().map(Err));
    }
    Ok(GetResult {
        payload: GetResultPayload::Stream(stream::iter(pieces).boxed()),
        meta,
        range,
        attributes,
        extensions,
    })
}
