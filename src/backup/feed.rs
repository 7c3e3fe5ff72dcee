//! Plain readers as stripes.

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::buffer::{BufferPool, MemoryBudget, SlotMut};
use crate::error::{Error, Result};
use crate::pipeline::{Ack, DevicePlan, Input};

/// `reader` to its end, in pieces of the size that the plan reserved for devices. The end counts as complete.
pub(super) fn read_all<R>(reader: R, plan: DevicePlan) -> Result<impl Stream<Item = Result<Input>> + Send + 'static>
where
    R: AsyncRead + Send + 'static,
{
    // Not the pipeline's budget: there this memory is reserved already, for devices.
    let depth = plan.depth.max(1);
    let pool =
        BufferPool::new(&MemoryBudget::new(plan.transfer_bytes as u64 * depth as u64), plan.transfer_bytes, depth)?;
    let state = Some((Box::pin(reader), pool));
    Ok(stream::unfold(state, |state| async {
        let (mut reader, pool) = state?;
        let mut slot = pool.acquire().await;
        match fill(&mut reader, &mut slot).await {
            Err(error) => Some((Err(Error::from(error).context("cannot read the input")), None)),
            Ok(()) if slot.is_empty() => Some((Ok(Input::Complete(Ack::new(|_durable| {}))), None)),
            Ok(()) => Some((Ok(Input::Data(slot.freeze().into_bytes())), Some((reader, pool)))),
        }
    }))
}

/// Reads until the slot is full or the reader at its end.
async fn fill<R: AsyncRead + Unpin>(reader: &mut R, slot: &mut SlotMut) -> std::io::Result<()> {
    while !slot.is_full() {
        let count = reader.read(slot.spare_mut()).await?;
        if count == 0 {
            break;
        }
        slot.advance(count);
    }
    Ok(())
}
