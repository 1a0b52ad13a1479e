//! One call to each system: a record of 256 bytes that a majority of its nodes has on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel as Connected, Endpoint};

/// Bytes of a record.
pub(crate) const BYTES: usize = 256;
/// Messages that RabbitMQ may send to a consumer before they are acknowledged.
const PREFETCH: u16 = 256;
const QUEUE: &str = "bench";

/// `etcdserverpb.PutRequest`; the numbers are etcd's.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, without what is not read.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PutResponse {}

/// A client of etcd.
pub(crate) struct Etcd {
    connection: Connected,
    key: Vec<u8>,
}

impl Etcd {
    /// Connects to one node; `number` makes the key, as long as a job's id.
    pub(crate) async fn connect(address: &str, number: usize) -> Result<Etcd, String> {
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(text)?;
        let connection = endpoint.tcp_nodelay(true).connect().await.map_err(text)?;
        Ok(Etcd { connection, key: format!("{number:026}").into_bytes() })
    }

    /// A client that shares the connection of another.
    pub(crate) fn sharing(&self, number: usize) -> Etcd {
        Etcd { connection: self.connection.clone(), key: format!("{number:026}").into_bytes() }
    }

    pub(crate) async fn put(&self) -> Result<(), String> {
        let mut grpc = tonic::client::Grpc::new(self.connection.clone());
        grpc.ready().await.map_err(text)?;
        let put = PutRequest { key: self.key.clone(), value: vec![b'x'; BYTES] };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
        grpc.unary(tonic::Request::new(put), path, codec).await.map_err(text)?;
        Ok(())
    }
}

/// A publisher to RabbitMQ's quorum queue, with confirms.
pub(crate) struct Rabbit {
    channel: Channel,
    number: u32,
    consumed: Arc<Consumed>,
}

/// Who is told that its message was consumed and acknowledged.
#[derive(Default)]
pub(crate) struct Consumed {
    waiting: Mutex<BTreeMap<u32, Arc<Notify>>>,
}

/// Connects to a node of RabbitMQ.
pub(crate) async fn connect_rabbit(address: &str) -> Result<Connection, String> {
    Connection::connect(address, ConnectionProperties::default()).await.map_err(text)
}

/// Declares the quorum queue with three members, empty.
pub(crate) async fn declare_queue(connection: &Connection) -> Result<(), String> {
    let channel = connection.create_channel().await.map_err(text)?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-quorum-initial-group-size".into(), AMQPValue::LongInt(3));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), durable, arguments).await.map_err(text)?;
    channel.queue_purge(QUEUE.into(), Default::default()).await.map_err(text)?;
    Ok(())
}

impl Rabbit {
    pub(crate) async fn open(
        connection: &Connection,
        number: u32,
        consumed: Arc<Consumed>,
    ) -> Result<Rabbit, String> {
        let channel = connection.create_channel().await.map_err(text)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(text)?;
        consumed.waiting.lock().await.insert(number, Arc::default());
        Ok(Rabbit { channel, number, consumed })
    }

    /// Publishes one persistent message and waits for the confirm.
    pub(crate) async fn publish(&self) -> Result<(), String> {
        let mut message = vec![b'x'; BYTES];
        message[..4].copy_from_slice(&self.number.to_be_bytes());
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let publish =
            self.channel.basic_publish("".into(), QUEUE.into(), options, &message, persistent);
        match publish.await.map_err(text)?.await.map_err(text)? {
            Confirmation::Ack(None) => Ok(()),
            other => Err(format!("expected an acknowledgement, got {other:?}")),
        }
    }

    /// Publishes, and waits until a consumer has taken and acknowledged the message.
    pub(crate) async fn cycle(&self) -> Result<(), String> {
        let notify = self.consumed.waiting.lock().await.get(&self.number).cloned();
        self.publish().await?;
        notify.ok_or("a client of an unknown number")?.notified().await;
        Ok(())
    }
}

/// Consumes and acknowledges until the connection ends.
pub(crate) async fn consume(
    connection: &Connection,
    consumed: Arc<Consumed>,
) -> Result<(), String> {
    let channel = connection.create_channel().await.map_err(text)?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(text)?;
    let options = BasicConsumeOptions::default();
    let arguments = FieldTable::default();
    let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, arguments);
    let mut consumer = consumer.await.map_err(text)?;
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let number = delivery.data.first_chunk().map(|head| u32::from_be_bytes(*head));
            if delivery.ack(BasicAckOptions::default()).await.is_err() {
                return;
            }
            let waiting = consumed.waiting.lock().await;
            if let Some(notify) = number.and_then(|number| waiting.get(&number)) {
                notify.notify_one();
            }
        }
    });
    Ok(())
}

/// A publisher to JetStream. NATS's protocol is lines of text.
pub(crate) struct Nats {
    stream: Mutex<BufReader<TcpStream>>,
    inbox: String,
}

impl Nats {
    pub(crate) async fn connect(address: &str, number: usize) -> Result<Nats, String> {
        let stream = TcpStream::connect(address).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let inbox = format!("_INBOX.{number}");
        let mut stream = BufReader::new(stream);
        let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {inbox} 1\r\n");
        stream.write_all(hello.as_bytes()).await.map_err(text)?;
        Ok(Nats { stream: Mutex::new(stream), inbox })
    }

    /// Makes a stream with three copies on disk.
    pub(crate) async fn create_stream(&self) -> Result<(), String> {
        let stream = "{\"name\":\"bench\",\"subjects\":[\"bench\"],\"storage\":\"file\",\
                      \"retention\":\"limits\",\"num_replicas\":3}";
        self.request("$JS.API.STREAM.CREATE.bench", stream.as_bytes()).await
    }

    pub(crate) async fn publish(&self) -> Result<(), String> {
        self.request(QUEUE, &[b'x'; BYTES]).await
    }

    async fn request(&self, subject: &str, payload: &[u8]) -> Result<(), String> {
        let mut stream = self.stream.lock().await;
        let mut message =
            format!("PUB {subject} {} {}\r\n", self.inbox, payload.len()).into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        stream.write_all(&message).await.map_err(text)?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.map_err(text)? == 0 {
                return Err("the connection ended".to_owned());
            }
            if line.starts_with("PING") {
                stream.write_all(b"PONG\r\n").await.map_err(text)?;
            }
            // `MSG subject id bytes` or, where nobody listens, `HMSG …`.
            if line.starts_with("MSG") {
                let bytes = line.split_whitespace().last().and_then(|bytes| bytes.parse().ok());
                let bytes: usize = bytes.ok_or("a message without a length")?;
                let mut answer = vec![0; bytes + 2];
                stream.read_exact(&mut answer).await.map_err(text)?;
                let answer = String::from_utf8_lossy(&answer).into_owned();
                return if answer.contains("\"error\"") { Err(answer) } else { Ok(()) };
            }
            if line.starts_with("-ERR") {
                return Err(line);
            }
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
