//! A frame's control part as a request: pure, checked, in place.

use highwater_engine::Start;
use highwater_process::CompileError;
use highwater_process::expression::MAX_SOURCE;
use highwater_wire::{
    ANY_SEQUENCE, APPEND_PARTIAL, APPEND_TELL, AppendRequest, ControlRequest, CreditRequest,
    DeliveryReceipt, ErrorCode, FetchRequest, Frame, FrameError, Kind, LocateRequest, ShardId,
    SubscribeRequest, UnsubscribeRequest, WireError, decode_control_request,
};

use crate::options::bounds::FETCH_WAIT_MS;

/// A request, its batch still in the receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Control(ControlRequest),
    Append {
        shard: ShardId,
        append: Append,
        batch: &'a [u8],
    },
    /// With a filter, or an empty text.
    Fetch {
        shard: ShardId,
        fetch: Fetch,
        filter: &'a str,
    },
    /// With a filter, or an empty text.
    Subscribe {
        shard: ShardId,
        subscribe: Subscribe,
        filter: &'a str,
    },
    /// With [`DeliveryReceipt`]s back to back, any number of them.
    Credit {
        subscription: u64,
        bytes: u64,
        receipts: &'a [u8],
    },
    Unsubscribe {
        subscription: u64,
    },
    Locate {
        shard: ShardId,
        start: Start,
    },
}

/// On what terms a batch is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Append {
    pub timeout_ms: u32,
    pub partial: bool,
    pub tell: bool,
    pub expected: Option<u64>,
}

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub from: u64,
    pub max_bytes: u32,
    pub min_bytes: u32,
    pub wait_ms: u32,
    /// 0 for none.
    pub lease: u64,
    /// What is read goes to a filter.
    pub filtered: bool,
}

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscribe {
    pub from: u64,
    pub credit: u64,
    pub max_bytes: u32,
    /// 0 for none.
    pub lease: u64,
    /// For a filter: where it ends, and when batches have to have arrived.
    pub until: u64,
    pub since_ns: u64,
}

/// Why a frame is not served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The connection ends.
    Fatal(WireError),
    /// Only this request.
    Request(WireError),
}

fn fatal(code: ErrorCode, message: String) -> Refusal {
    Refusal::Fatal(WireError::new(code, message))
}

/// The request in a frame.
pub(crate) fn parse<'a>(frame: &Frame<'a>) -> Result<Request<'a>, Refusal> {
    let control = frame.control;
    let surplus = match frame.kind {
        Kind::Append | Kind::Fetch | Kind::Subscribe => 0,
        Kind::Credit => frame.data.len() % DeliveryReceipt::LEN,
        _ => frame.data.len(),
    };
    if surplus > 0 {
        let message =
            format!("{:?} carries {surplus} bytes of data too many; 0 allowed", frame.kind);
        return Err(fatal(ErrorCode::MalformedFrame, message));
    }
    macro_rules! header {
        ($header:ty) => {
            <$header>::view(control).filter(|_| control.len() == <$header>::LEN).ok_or_else(
                || {
                    let (kind, found, expected) = (frame.kind, control.len(), <$header>::LEN);
                    let message = format!(
                        "control part of {kind:?} is {found} bytes long, expected {expected}"
                    );
                    fatal(ErrorCode::MalformedFrame, message)
                },
            )?
        };
    }
    Ok(match frame.kind {
        Kind::Control => Request::Control(decode_control_request(control).map_err(Refusal::Fatal)?),
        Kind::Append => {
            let header = header!(AppendRequest);
            let flags = header.flags.to_native();
            if flags & !(APPEND_PARTIAL | APPEND_TELL) != 0 {
                let message = format!("flags of an append are {flags:#x}; 0x3 are known");
                return Err(Refusal::Request(WireError::new(ErrorCode::InvalidArgument, message)));
            }
            let append = Append {
                timeout_ms: header.timeout_ms.to_native(),
                partial: flags & APPEND_PARTIAL != 0,
                tell: flags & APPEND_TELL != 0,
                expected: Some(header.expected_sequence.to_native()).filter(|s| *s != ANY_SEQUENCE),
            };
            Request::Append { shard: header.shard_id(), append, batch: frame.data }
        }
        Kind::Fetch => {
            let header = header!(FetchRequest);
            let fetch = Fetch {
                from: header.from.to_native(),
                max_bytes: header.max_bytes.to_native(),
                min_bytes: header.min_bytes.to_native(),
                wait_ms: header.max_wait_ms.to_native().min(FETCH_WAIT_MS),
                lease: header.lease.to_native(),
                filtered: !frame.data.is_empty(),
            };
            Request::Fetch { shard: header.shard_id(), fetch, filter: filter(frame.data)? }
        }
        Kind::Subscribe => {
            let header = header!(SubscribeRequest);
            let subscribe = Subscribe {
                from: header.from.to_native(),
                credit: header.credit_bytes.to_native(),
                max_bytes: header.max_bytes.to_native(),
                lease: header.lease.to_native(),
                until: header.until.to_native(),
                since_ns: header.since_ns.to_native(),
            };
            let filter = filter(frame.data)?;
            Request::Subscribe { shard: header.shard_id(), subscribe, filter }
        }
        Kind::Credit => {
            let header = header!(CreditRequest);
            Request::Credit {
                subscription: header.subscription.to_native(),
                bytes: header.bytes.to_native(),
                receipts: frame.data,
            }
        }
        Kind::Unsubscribe => Request::Unsubscribe {
            subscription: header!(UnsubscribeRequest).subscription.to_native(),
        },
        Kind::Locate => {
            let header = header!(LocateRequest);
            let value = header.value.to_native();
            let start = match header.kind.to_native() {
                0 => Start::Oldest,
                1 => Start::Latest,
                2 => Start::At(value),
                3 => Start::After(value),
                4 => Start::Time(value),
                other => {
                    let message = format!("kind of position is {other}; 0 to 4 are known");
                    return Err(Refusal::Request(WireError::new(
                        ErrorCode::InvalidArgument,
                        message,
                    )));
                }
            };
            Request::Locate { shard: header.shard_id(), start }
        }
        kind => {
            let message = format!("{kind:?} is a reply, not a request");
            return Err(Refusal::Request(WireError::new(ErrorCode::UnknownRequest, message)));
        }
    })
}

/// The text of a filter; empty for none.
fn filter(data: &[u8]) -> Result<&str, Refusal> {
    let wrong =
        |message: String| Refusal::Request(WireError::new(ErrorCode::InvalidFilter, message));
    // Before anything is kept of it.
    if data.len() > MAX_SOURCE {
        return Err(wrong(CompileError::TooLong { bytes: data.len() }.to_string()));
    }
    std::str::from_utf8(data).map_err(|error| {
        wrong(format!("the expression is not UTF-8 from byte {} on", error.valid_up_to()))
    })
}

/// A frame that is none, as told to the client before the connection ends.
pub(crate) fn frame_error(error: &FrameError) -> WireError {
    let code = match error {
        FrameError::TooLarge { .. } => ErrorCode::FrameTooLarge,
        FrameError::Kind(_) => ErrorCode::UnknownRequest,
        FrameError::Magic(_) | FrameError::Checksum { .. } => ErrorCode::MalformedFrame,
    };
    WireError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{Decoded, decode_frame, encode_control_request, encode_frame};

    fn with<T>(
        kind: Kind,
        control: &[u8],
        data: &[u8],
        check: impl FnOnce(Result<Request<'_>, Refusal>) -> T,
    ) -> T {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, kind, 5, control, data);
        let Ok(Decoded::Frame(frame, _)) = decode_frame(&bytes, 1 << 20) else { panic!() };
        check(parse(&frame))
    }

    #[test]
    fn requests_are_read_in_place() {
        let append = AppendRequest::new(ShardId { stream: 3, shard: 1 }, 250);
        with(Kind::Append, &append.to_array(), b"batch", |request| {
            let shard = ShardId { stream: 3, shard: 1 };
            let plain = Append { timeout_ms: 250, partial: false, tell: false, expected: None };
            assert_eq!(request, Ok(Request::Append { shard, append: plain, batch: b"batch" }));
        });
        let append = AppendRequest {
            flags: (APPEND_PARTIAL | APPEND_TELL).into(),
            expected_sequence: 7.into(),
            ..append
        };
        with(Kind::Append, &append.to_array(), b"batch", |request| {
            let Ok(Request::Append { append, .. }) = request else { panic!("{request:?}") };
            assert_eq!((append.partial, append.tell, append.expected), (true, true, Some(7)));
        });
        let append = AppendRequest { flags: 4.into(), ..append };
        with(Kind::Append, &append.to_array(), b"batch", |refusal| {
            let Err(Refusal::Request(error)) = refusal else { panic!("{refusal:?}") };
            assert_eq!(error.code, ErrorCode::InvalidArgument);
        });
        let hello = ControlRequest::Hello { protocol: 1, client: "test".into() };
        with(Kind::Control, &encode_control_request(&hello), b"", |request| {
            assert_eq!(request, Ok(Request::Control(hello.clone())));
        });
        let fetch = FetchRequest {
            stream: 0.into(),
            shard: 0.into(),
            from: 9.into(),
            max_bytes: 100.into(),
            min_bytes: 1.into(),
            max_wait_ms: u32::MAX.into(),
            reserved: 0.into(),
            lease: 0.into(),
        };
        with(Kind::Fetch, &fetch.to_array(), b"", |request| {
            let Ok(Request::Fetch { fetch, filter, .. }) = request else { panic!() };
            assert_eq!((fetch.wait_ms, fetch.filtered, filter), (FETCH_WAIT_MS, false, ""));
        });
        with(Kind::Fetch, &fetch.to_array(), b"size > 1", |request| {
            let Ok(Request::Fetch { fetch, filter, .. }) = request else { panic!() };
            assert_eq!((fetch.filtered, filter), (true, "size > 1"));
        });
        for wrong in [&b"key == '\xff'"[..], &[b' '; MAX_SOURCE + 1]] {
            with(Kind::Fetch, &fetch.to_array(), wrong, |refusal| {
                let Err(Refusal::Request(error)) = refusal else { panic!("{refusal:?}") };
                assert_eq!(error.code, ErrorCode::InvalidFilter);
            });
        }
    }

    #[test]
    fn what_is_wrong_is_fatal_only_when_the_stream_of_frames_is_in_doubt() {
        let wrong: [(Kind, &[u8], &[u8]); 3] = [
            (Kind::Append, &[0; 15], b""),
            (Kind::Control, &[0xee; 40], b""),
            (Kind::Credit, &[0; 16], b"surplus"),
        ];
        for (kind, control, data) in wrong {
            with(kind, control, data, |refusal| {
                let Err(Refusal::Fatal(error)) = refusal else { panic!("{refusal:?}") };
                assert_eq!(error.code, ErrorCode::MalformedFrame);
            });
        }
        with(Kind::Deliver, &[0; 24], b"", |refusal| {
            let Err(Refusal::Request(error)) = refusal else { panic!("{refusal:?}") };
            assert_eq!(error.code, ErrorCode::UnknownRequest);
        });
        let receipt = DeliveryReceipt { next: 5.into(), received_ns: 9.into() };
        with(Kind::Credit, &[0; 16], &receipt.to_array(), |request| {
            let Ok(Request::Credit { receipts, .. }) = request else { panic!("{request:?}") };
            assert_eq!(DeliveryReceipt::each(receipts).collect::<Vec<_>>(), [receipt]);
        });
        let mut locate = [0u8; 24];
        locate[8] = 9;
        with(Kind::Locate, &locate, b"", |refusal| {
            let Err(Refusal::Request(error)) = refusal else { panic!("{refusal:?}") };
            assert_eq!(error.code, ErrorCode::InvalidArgument);
        });
    }
}
