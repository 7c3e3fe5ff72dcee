//! Device sets as the stripes of a backup or a restore.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};

use futures::future::try_join_all;
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::reader::Restore;
use super::report::BackupReport;
use super::writer::Backup;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Ack, DevicePlan, Input};
use crate::stream::{ClientWriter, DeviceItem, DeviceReader, DeviceStream, DeviceWriter};
use crate::vdi::{Config, Features, LocalHub, ServerConfig, client, server};

/// The name of a set that only this process sees, in a hub of its own.
const PRIVATE_NAME: &str = "stripes";

/// The limits that the VDI specification has for a transfer.
const TRANSFER_UNIT: usize = 64 << 10;
const MAX_TRANSFER: usize = 4 << 20;

/// Both ends of a device set of our own.
struct PrivateSet {
    server: server::DeviceSet,
    client: client::DeviceSet,
    buffers: usize,
}

impl PrivateSet {
    /// A set with one device per stripe and the buffers that the plan reserved.
    fn open(stripes: u16, plan: DevicePlan, direction: Features) -> Result<Self> {
        // A hub in the process answers each of these at once.
        let opened = Self::open_now(stripes, plan, direction).now_or_never();
        opened.ok_or_else(|| Error::new(ErrorKind::Internal, "a private device set was not ready at once"))?
    }

    async fn open_now(stripes: u16, plan: DevicePlan, direction: Features) -> Result<Self> {
        let transfer = plan.transfer_bytes.clamp(TRANSFER_UNIT, MAX_TRANSFER) / TRANSFER_UNIT * TRANSFER_UNIT;
        let buffers = plan.depth.max(1);
        let hub = LocalHub::new();
        let client = client::DeviceSet::create(&hub, PRIVATE_NAME, Config::pipe(u32::from(stripes)))?;
        let server = server::DeviceSet::open(&hub, PRIVATE_NAME).await?;
        let config = ServerConfig {
            features: direction | Features::COMPLETE_ENABLED,
            max_transfer_size: u32::try_from(transfer).unwrap_or(u32::MAX),
            max_io_depth: u32::try_from(buffers).unwrap_or(u32::MAX),
            ..ServerConfig::default()
        };
        server.begin_configuration(config)?.request_buffers(transfer, 0, buffers * usize::from(stripes))?;
        server.end_configuration().await?;
        client.configuration(None).await?;
        Ok(Self { server, client, buffers })
    }
}

impl Backup {
    /// Opens a device set of its own, in process, and returns one writer per stripe, in order.
    ///
    /// Every writer must be shut down before the commit; one that is dropped before that fails the backup. The set's
    /// completion agent runs in a tracked task and ends with the writers or with the backup.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if a stripe was given its input before; the first failure if the backup has failed.
    pub fn take_writers(&mut self) -> Result<Vec<DeviceWriter>> {
        let plan = self.pipeline().device_plan();
        let set = PrivateSet::open(self.stripes(), plan, Features::WRITE_MEDIA)?;
        let agent = set.server.completion_agent();
        self.session.store.tasks().spawn(async move {
            // Whatever ended it is what the writers report.
            let _ended = agent.await;
        });
        let mut writers = Vec::new();
        for device in open_devices(&set.server, self.stripes())? {
            writers.push(DeviceWriter::new(&set.server, device, set.buffers)?);
        }
        self.attach(&set.client, writers.iter().map(DeviceWriter::closed_flag).collect())?;
        Ok(writers)
    }

    /// Backs up what an engine writes to the devices of `set`, then commits.
    ///
    /// `set` is the client side, just created or configured: this waits for the engine's configuration, opens every device and
    /// runs each to its end. If the engine sends `Complete`, that is the end of a stripe; an engine that does not know it ends a
    /// stripe by closing the device. The set is closed before this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the set has another number of devices than the backup has stripes; the reason of the engine's
    /// abort; otherwise as [`Backup::commit`]. Nothing is visible then, and the engine learns the reason.
    ///
    /// # Cancel safety
    ///
    /// As [`Backup::commit`]: dropped before that stage, the backup and the device set are aborted.
    pub async fn serve(mut self, set: client::DeviceSet) -> Result<BackupReport> {
        let served = self.run_devices(&set).await;
        // Every stripe is durable, or the first cause has been told to the engine: close has nothing more to say.
        let closed = set.close().await;
        match served {
            Ok(()) => {
                closed?;
                self.commit().await
            }
            Err(error) => {
                // What cannot be removed is logged; the first error is the answer.
                let _leftovers = self.abort(error.clone()).await;
                Err(error)
            }
        }
    }

    async fn run_devices(&mut self, set: &client::DeviceSet) -> Result<()> {
        let outcome = async {
            let configuration = set.configuration(None).await?;
            let (devices, stripes) = (configuration.device_count, u32::from(self.stripes()));
            if devices != stripes {
                let message = format!("the device set has {devices} devices, the backup {stripes} stripes");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            self.attach(set, Vec::new())?;
            self.wait_stripes().await
        };
        let outcome = outcome.await;
        if let Err(error) = &outcome {
            // An error means that the set has ended already.
            let _ended = set.abort(error.clone());
        }
        outcome
    }

    /// Makes the devices of `set` the stripes, in order. `closed` tells of each whether its writer was shut down.
    fn attach(&mut self, set: &client::DeviceSet, mut closed: Vec<Arc<AtomicBool>>) -> Result<()> {
        let configuration = set.configuration(None).now_or_never();
        let configuration =
            configuration.ok_or_else(|| Error::new(ErrorKind::Internal, "the device set is not configured"))??;
        let has_complete = configuration.features.contains(Features::COMPLETE_ENABLED);
        let told = set.clone();
        self.session.on_stop(move |cause| {
            // An error means that the set has ended already.
            let _ended = told.abort(cause);
        });
        closed.reverse();
        for (stripe, device) in (0..).zip(set.open_all()?) {
            let (source, end) = DeviceSource::new(DeviceStream::new(set, device), has_complete);
            let session = Arc::clone(&self.session);
            let kept = self.kept(stripe);
            let task = async move {
                let outcome = Arc::clone(&session).run_stripe(stripe, kept, source).await;
                let ended = end.await;
                let summary = outcome?;
                ended.map_err(|error| session.fail(error))?;
                Ok(summary)
            };
            self.start(stripe, closed.pop(), task)?;
        }
        Ok(())
    }
}

fn open_devices(set: &server::DeviceSet, count: u16) -> Result<Vec<server::Device>> {
    (0..count).map(|_| set.open_device().map_err(Error::from)).collect()
}

/// What an engine sends to one device, as the pipeline takes it.
///
/// The pipeline lets go of it once the stripe is complete. The device must live on until the engine has closed it, so the
/// stream is handed back on drop.
struct DeviceSource {
    stream: Option<DeviceStream>,
    /// The engine says `Complete`; otherwise its close of the device is the end.
    has_complete: bool,
    is_ended: bool,
    give_back: Option<oneshot::Sender<DeviceStream>>,
}

impl DeviceSource {
    /// The source, and a future that sees the device to its end after it.
    fn new(stream: DeviceStream, has_complete: bool) -> (Self, impl Future<Output = Result<()>> + Send + 'static) {
        let (give_back, given_back) = oneshot::channel();
        let source = Self { stream: Some(stream), has_complete, is_ended: false, give_back: Some(give_back) };
        let end = async {
            match given_back.await {
                Ok(stream) => see_closed(stream).await,
                // It was never polled; dropping it has aborted the set.
                Err(_gone) => Ok(()),
            }
        };
        (source, end)
    }
}

impl Stream for DeviceSource {
    type Item = Result<Input>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let item = ready!(stream.poll_next_unpin(cx));
        Poll::Ready(match item {
            Some(Ok(DeviceItem::Data(bytes))) => Some(Ok(Input::Data(bytes))),
            Some(Ok(DeviceItem::Flush(ack))) => Some(Ok(Input::Flush(Ack::new(move |outcome| ack.answer(outcome))))),
            Some(Ok(DeviceItem::Complete(ack))) => {
                self.is_ended = true;
                Some(Ok(Input::Complete(Ack::new(move |outcome| ack.answer(outcome)))))
            }
            Some(Err(error)) => {
                self.is_ended = true;
                Some(Err(error))
            }
            None => {
                self.is_ended = true;
                (!self.has_complete).then(|| Ok(Input::Complete(Ack::new(|_durable| {}))))
            }
        })
    }
}

impl Drop for DeviceSource {
    fn drop(&mut self) {
        if let (Some(stream), Some(give_back)) = (self.stream.take(), self.give_back.take()) {
            // If nobody waits for it, it is dropped here and aborts the set.
            let _nobody_waits = give_back.send(stream);
        }
    }
}

/// After the end of a stripe: waits until the engine has closed the device. Nothing may follow but questions whose answer
/// is known.
async fn see_closed(mut stream: DeviceStream) -> Result<()> {
    while let Some(item) = stream.next().await {
        match item? {
            DeviceItem::Flush(ack) | DeviceItem::Complete(ack) => ack.answer(Ok(())),
            DeviceItem::Data(_late) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the engine wrote to device {} after its end", stream.name()),
                ));
            }
        }
    }
    Ok(())
}

impl Restore {
    /// Opens a device set of its own, in process, and returns one reader per stripe, in order.
    ///
    /// Each reader delivers its stripe's verified bytes and then the end. What went wrong is an error of the reader, and of
    /// [`Restore::finish`]. Must be called within a Tokio runtime: the feeding runs in tasks that the store tracks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the readers were taken before.
    pub fn take_readers(&mut self) -> Result<Vec<DeviceReader>> {
        if !self.feeds.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "the readers were taken before"));
        }
        if self.stripes() == 0 {
            return Ok(Vec::new());
        }
        let set = PrivateSet::open(self.stripes(), self.pipeline().device_plan(), Features::READ_MEDIA)?;
        let agent = set.server.completion_agent();
        self.store.tasks().spawn(async move {
            // Whatever ended it is what the readers report.
            let _ended = agent.await;
        });
        let mut readers = Vec::new();
        for device in open_devices(&set.server, self.stripes())? {
            readers.push(DeviceReader::new(&set.server, device, set.buffers)?);
        }
        for (stripe, device) in (0..).zip(set.client.open_all()?) {
            let feed = feed(self.stripe(stripe), set.client.clone(), device);
            self.feeds.push(self.store.tasks().spawn(feed));
        }
        Ok(readers)
    }

    /// Waits until every reader has had its whole stripe.
    ///
    /// # Errors
    ///
    /// The first failure: damaged data, the store's, or that a reader was dropped before its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops only the waiting; the readers go on.
    pub async fn finish(mut self) -> Result<()> {
        for feed in self.feeds.drain(..) {
            feed.await
                .map_err(|error| Error::new(ErrorKind::Internal, "a feeding task panicked").with_source(error))??;
        }
        Ok(())
    }

    /// Feeds an engine that restores: every device of `set` gets its stripe, in order, then the end of data.
    ///
    /// `set` is the client side, just created or configured. The set is closed before this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the set has another number of devices than the backup has stripes; damaged data, the store's
    /// failures, and the reason of the engine's abort. The engine learns the reason in each case.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: dropping it aborts the device set.
    pub async fn serve(self, set: client::DeviceSet) -> Result<()> {
        let outcome = async {
            let configuration = set.configuration(None).await?;
            let (devices, stripes) = (configuration.device_count, u32::from(self.stripes()));
            if devices != stripes {
                let message = format!("the device set has {devices} devices, the backup {stripes} stripes");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            let feeds = (0..).zip(set.open_all()?);
            let feeds = feeds.map(|(stripe, device)| feed(self.stripe(stripe), set.clone(), device));
            try_join_all(feeds).await?;
            Ok(())
        };
        let outcome = outcome.await;
        if let Err(error) = &outcome {
            // An error means that the set has ended already.
            let _ended = set.abort(error.clone());
        }
        let closed = set.close().await;
        outcome?;
        Ok(closed?)
    }
}

/// Gives one device its stripe.
async fn feed(
    stripe: impl Stream<Item = Result<bytes::Bytes>> + Send + 'static,
    set: client::DeviceSet,
    device: client::Device,
) -> Result<()> {
    let mut writer = ClientWriter::new(&set, device);
    let mut frames = std::pin::pin!(stripe);
    while let Some(frame) = frames.next().await {
        match frame {
            Ok(bytes) => writer.write_all(&bytes).await?,
            Err(error) => {
                // Said before the writer is dropped, so that it is the reason that the engine sees.
                let _ended = set.abort(error.clone());
                return Err(error);
            }
        }
    }
    writer.shutdown().await?;
    Ok(())
}
