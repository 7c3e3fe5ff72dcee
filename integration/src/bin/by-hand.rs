//! What a user would write by hand: one compressed stream through one buffered upload, and back. It is compared, not shipped.
//!
//! ```text
//! by-hand backup URL < DATA
//! by-hand restore URL > DATA
//! ```

use std::sync::Arc;

use async_compression::Level;
use async_compression::tokio::{bufread::ZstdDecoder, write::ZstdEncoder};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::{AsyncWriteExt, copy_buf};
use tokio_util::io::StreamReader;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [direction, url] = &arguments[..] else { return Err("usage: by-hand backup|restore URL".into()) };
    let (store, path) = open(url)?;
    if direction == "backup" {
        let upload = BufWriter::with_capacity(store, path, 8 << 20);
        let mut encoder = ZstdEncoder::with_quality(upload, Level::Precise(3));
        let mut input = tokio::io::BufReader::with_capacity(1 << 20, tokio::io::stdin());
        copy_buf(&mut input, &mut encoder).await?;
        encoder.shutdown().await?;
    } else {
        // Not `object_store::buffered::BufReader`: while one of its ranges is on its way, the decoder is asked again and again without
        // input, and zstd gives up after 16 times.
        let download = StreamReader::new(store.get(&path).await?.into_stream());
        let mut decoder = tokio::io::BufReader::with_capacity(1 << 20, ZstdDecoder::new(download));
        let mut output = tokio::io::stdout();
        copy_buf(&mut decoder, &mut output).await?;
        output.flush().await?;
    }
    Ok(())
}

fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    if scheme == "file" {
        return Ok((Arc::new(LocalFileSystem::new()), Path::from_absolute_path(rest)?));
    }
    let (bucket, key) = rest.split_once('/').ok_or("no name in the bucket")?;
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => Arc::new(AmazonS3Builder::from_env().with_bucket_name(bucket).build()?),
        _ => Arc::new(MicrosoftAzureBuilder::from_env().with_container_name(bucket).build()?),
    };
    Ok((store, Path::from(key)))
}
