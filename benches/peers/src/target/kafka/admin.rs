//! The two requests of Kafka's protocol that the client does not have: a topic with settings, and what its settings are.
//!
//! In the versions that brokers from 1.1 on to this day take and that have no tagged fields: CreateTopics 2 and
//! DescribeConfigs 1, behind a request header of version 1. Layout: kafka.apache.org/protocol.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// CreateTopics, and its version.
const CREATE: (i16, i16) = (19, 2);
/// DescribeConfigs, and its version.
const DESCRIBE: (i16, i16) = (32, 1);
/// The kind of resource that a topic is.
const TOPIC: u8 = 2;
/// There is a topic with that name already.
const EXISTS: i16 = 36;
/// Longest answer that is taken, bytes.
const LONGEST: usize = 1 << 20;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a topic was not made or described.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The connection.
    #[error("asking the broker for a topic: {0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("the broker did not answer within {PATIENCE:?}")]
    Silent,
    /// An answer that is none.
    #[error("the broker's answer about a topic is not as its protocol has it")]
    Answer,
    /// It will not.
    #[error("the broker refused: error {code}{message}")]
    Refused {
        /// As kafka.apache.org/protocol lists them.
        code: i16,
        /// In words, if it has any.
        message: String,
    },
}

/// Makes the topic `name` with one partition, one replica and `settings`, unless there is one.
pub async fn create_topic(
    address: &str,
    name: &str,
    settings: &[(&str, &str)],
    patience_ms: i32,
) -> Result<(), AdminError> {
    let answer = ask(address, CREATE, &creation(name, settings, patience_ms)).await?;
    match created(&answer).ok_or(AdminError::Answer)? {
        (0 | EXISTS, _) => Ok(()),
        (code, message) => Err(refusal(code, message)),
    }
}

/// What `setting` of the topic `name` is; `None` if the broker does not know the setting.
pub async fn topic_setting(
    address: &str,
    name: &str,
    setting: &str,
) -> Result<Option<String>, AdminError> {
    let answer = ask(address, DESCRIBE, &description(name, setting)).await?;
    match described(&answer, setting).ok_or(AdminError::Answer)? {
        Ok(value) => Ok(value),
        Err((code, message)) => Err(refusal(code, message)),
    }
}

fn refusal(code: i16, message: Option<String>) -> AdminError {
    let message = message.map_or_else(String::new, |message| format!(", {message}"));
    AdminError::Refused { code, message }
}

/// The body of a request.
fn creation(name: &str, settings: &[(&str, &str)], patience_ms: i32) -> Vec<u8> {
    let mut body = Vec::new();
    put_count(&mut body, 1);
    put_string(&mut body, name);
    body.extend(1_i32.to_be_bytes()); // partitions
    body.extend(1_i16.to_be_bytes()); // replicas
    put_count(&mut body, 0); // assignments of replicas
    put_count(&mut body, settings.len());
    for (setting, value) in settings {
        put_string(&mut body, setting);
        put_string(&mut body, value);
    }
    body.extend(patience_ms.to_be_bytes());
    body.push(0); // not to validate only
    body
}

/// The body of a request.
fn description(name: &str, setting: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_count(&mut body, 1);
    body.push(TOPIC);
    put_string(&mut body, name);
    put_count(&mut body, 1);
    put_string(&mut body, setting);
    body.push(0); // without synonyms
    body
}

fn put_count(body: &mut Vec<u8>, count: usize) {
    body.extend((count as i32).to_be_bytes());
}

/// A string of less than 32 KiB, as all here are.
fn put_string(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as i16).to_be_bytes());
    body.extend(text.as_bytes());
}

/// An error of a broker: its code, and its words if there are any.
type Coded = (i16, Option<String>);

/// The error of the only topic in an answer to a creation, 0 for none.
fn created(answer: &[u8]) -> Option<Coded> {
    let mut fields = Fields(answer);
    fields.skip(4)?; // throttle time
    fields.skip(4)?; // number of topics
    fields.string()?;
    Some((fields.i16()?, fields.string()?))
}

/// The value of `setting` in an answer to a description, or the error.
fn described(answer: &[u8], setting: &str) -> Option<Result<Option<String>, Coded>> {
    let mut fields = Fields(answer);
    fields.skip(4)?; // throttle time
    fields.skip(4)?; // number of resources
    let (code, message) = (fields.i16()?, fields.string()?);
    if code != 0 {
        return Some(Err((code, message)));
    }
    fields.skip(1)?; // kind of resource
    fields.string()?;
    let mut value = None;
    for _ in 0..fields.i32()? {
        let (name, is) = (fields.string()?, fields.string()?);
        fields.skip(3)?; // read-only, source, sensitive
        for _ in 0..fields.i32()?.max(0) {
            fields.string()?;
            fields.string()?;
            fields.skip(1)?;
        }
        if name.as_deref() == Some(setting) {
            value = is;
        }
    }
    Some(Ok(value))
}

/// What is left of an answer; `None` where it is too short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(bytes)?;
        self.0 = left;
        Some(taken)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.take(bytes).map(drop)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// `Some(None)` for null.
    fn string(&mut self) -> Option<Option<String>> {
        match usize::try_from(self.i16()?) {
            Ok(length) => {
                let text = std::str::from_utf8(self.take(length)?).ok()?;
                Some(Some(text.to_owned()))
            }
            Err(_) => Some(None),
        }
    }
}

/// Asks one thing on a connection of its own; gives the body of the answer.
async fn ask(address: &str, api: (i16, i16), body: &[u8]) -> Result<Vec<u8>, AdminError> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&framed(api, body)).await?;
        let length = stream.read_i32().await?;
        let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST);
        let mut answer = vec![0; length.ok_or(AdminError::Answer)?];
        stream.read_exact(&mut answer).await?;
        // Behind the number of the request, which is the only one.
        match answer.len() {
            4.. => Ok(answer.split_off(4)),
            _ => Err(AdminError::Answer),
        }
    };
    timeout(PATIENCE, asked).await.map_err(|_| AdminError::Silent)?
}

/// A request with its length and header.
fn framed((key, version): (i16, i16), body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // number of the request
    put_string(&mut request, "highwater-peers");
    request.extend(body);
    let mut frame = (request.len() as i32).to_be_bytes().to_vec();
    frame.extend(request);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes: numbers in hexadecimal, and text in quotes.
    fn bytes(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in text.split_whitespace() {
            match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
                Some(word) => bytes.extend(word.as_bytes()),
                None => bytes.extend((0..word.len()).step_by(2).map(|at| {
                    u8::from_str_radix(word.get(at..at + 2).unwrap_or_default(), 16).unwrap_or(0)
                })),
            }
        }
        bytes
    }

    #[test]
    fn requests_are_laid_out_as_the_protocol_has_it() {
        let creation = creation("t", &[("flush.messages", "1")], 10_000);
        let expected = bytes(
            "00000001 0001 \"t\" 00000001 0001 00000000 00000001 000e \"flush.messages\" 0001 \"1\" 00002710 00",
        );
        assert_eq!(creation, expected);
        let expected = bytes("00000001 02 0001 \"t\" 00000001 000e \"flush.messages\" 00");
        assert_eq!(description("t", "flush.messages"), expected);
        let expected = bytes("0000001b 0013 0002 00000001 000f \"highwater-peers\" abcd");
        assert_eq!(framed(CREATE, &[0xab, 0xcd]), expected);
    }

    #[test]
    fn answers_are_read_and_short_ones_are_none() {
        let well = bytes("00000000 00000001 0001 \"t\" 0000 ffff");
        assert_eq!(created(&well), Some((0, None)));
        let refused = bytes("00000000 00000001 0001 \"t\" 0028 0003 \"bad\"");
        assert_eq!(created(&refused), Some((40, Some("bad".to_owned()))));

        let synonym = "0001 \"s\" 0001 \"9\" 05";
        let settings = format!(
            "00000002 0001 \"x\" ffff 00 05 00 00000001 {synonym} 000e \"flush.messages\" 0001 \"1\" 00 01 00 00000000"
        );
        let answer = bytes(&format!("00000000 00000001 0000 ffff 02 0001 \"t\" {settings}"));
        assert_eq!(described(&answer, "flush.messages"), Some(Ok(Some("1".to_owned()))));
        assert_eq!(described(&answer, "x"), Some(Ok(None)));
        assert_eq!(described(&answer, "other"), Some(Ok(None)));
        let unknown = bytes("00000000 00000001 0003 ffff");
        assert_eq!(described(&unknown, "x"), Some(Err((3, None))));

        for short in 0..well.len() {
            assert_eq!(created(&well[..short]), None, "{short}");
        }
        for short in 0..answer.len() {
            assert_eq!(described(&answer[..short], "x"), None, "{short}");
        }
    }
}
