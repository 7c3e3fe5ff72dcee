//! The head of a request: method, target, length of the body.

/// A request has at most this much before its body.
const MAX_BYTES: usize = 64 << 10;

/// What is known of a request when its head is through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) body_bytes: u64,
}

/// Reads the head from the start of `bytes`; also says how long it is. `None` if more must come.
///
/// # Errors
///
/// When it is not the head of a request whose end can be known.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() < MAX_BYTES { Ok(None) } else { Err("a head without an end".to_owned()) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is not text".to_owned())?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
        return Err(format!("not a request: {text:.80}"));
    };
    let mut body_bytes = 0;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Err(format!("not a header: {line}")) };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                body_bytes = value.trim().parse().map_err(|_| format!("not a length: {line}"))?;
            }
            "transfer-encoding" => return Err(format!("a body whose length is not known: {line}")),
            _ => {}
        }
    }
    Ok(Some((Head { method: method.to_owned(), target: target.to_owned(), body_bytes }, end + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let text = b"PUT /bucket/a?partNumber=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nbody";
        for cut in 0..text.len() - 4 {
            assert_eq!(parse(&text[..cut]), Ok(None), "{cut}");
        }
        let head = Head { method: "PUT".to_owned(), target: "/bucket/a?partNumber=1".to_owned(), body_bytes: 12 };
        assert_eq!(parse(text), Ok(Some((head, text.len() - 4))));
    }

    #[test]
    fn what_it_cannot_follow_is_refused() {
        for text in ["GET / HTTP/1.0\r\n\r\n", "x\r\n\r\n", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(&[b'x'; MAX_BYTES]).is_err());
    }
}
