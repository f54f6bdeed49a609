//! A DNS server with scripted answers: UDP and TCP on one port, truncation, faults, forged answers.
//!
//! In: the answer for each name. Out: answers as on the wire, and how often the server was asked. Source: RFC
//! 1035 §4.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::vip::Block;

/// The answer for a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses, with a TTL in seconds.
    Hosts(Vec<IpAddr>, u32),
    /// These SRV records (priority, weight, port, target), with a TTL in seconds.
    Services(Vec<(u16, u16, u16, String)>, u32),
    /// This response code and no records.
    Code(ResponseCode),
    /// No answer.
    Silence,
    /// Over UDP a forged answer (wrong id, first address), then the true one (second address).
    Forged(IpAddr, IpAddr),
}

/// How often the server was asked, by transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub udp: usize,
    pub tcp: usize,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Says>,
    asked: Asked,
    /// When each question over UDP arrived.
    times: Vec<Instant>,
}

/// A running server; it ends with its runtime.
pub struct Dns {
    pub addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Dns {
    /// Starts the server at an address of the block, on a port that is free for both UDP and TCP.
    pub async fn start(block: &Block) -> Dns {
        let ip = block.ip("10.0.0.53");
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((ip, 0)).await.expect("a UDP port");
            let port = udp.local_addr().expect("bound").port();
            if let Ok(tcp) = TcpListener::bind((ip, port)).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().expect("bound");
        let zone = Arc::new(Mutex::new(Zone::default()));
        tokio::spawn(serve_udp(udp, zone.clone()));
        tokio::spawn(serve_tcp(tcp, zone.clone()));
        Dns { addr, zone }
    }

    /// Sets the answer for `name` from now on.
    pub fn says(&self, name: &str, says: Says) {
        self.zone.lock().names.insert(format!("{name}."), says);
    }

    /// Sets these addresses for `name`, with a TTL of one second.
    pub fn hosts(&self, name: &str, addresses: &[IpAddr]) {
        self.says(name, Says::Hosts(addresses.to_vec(), 1));
    }

    /// How often the server was asked so far.
    pub fn asked(&self) -> Asked {
        self.zone.lock().asked
    }

    /// When each question over UDP arrived so far.
    pub fn times(&self) -> Vec<Instant> {
        self.zone.lock().times.clone()
    }

    /// Waits until `more` further questions have arrived.
    pub async fn wait_asked(&self, more: usize) {
        let until = self.asked().udp + more;
        crate::deadline("questions", async {
            while self.asked().udp < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
        {
            let mut zone = zone.lock();
            zone.asked.udp += 1;
            zone.times.push(Instant::now());
        }
        let Ok(question) = Message::from_vec(&buffer[..n]) else {
            continue;
        };
        let most = question.max_payload().into();
        for answer in answers(&question, &zone, true) {
            let mut bytes = answer.to_vec().expect("an answer of ours");
            if bytes.len() > most {
                bytes = answer.truncate().to_vec().expect("a short answer");
            }
            let _ = socket.send_to(&bytes, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let zone = zone.clone();
        tokio::spawn(async move { converse(stream, zone).await });
    }
}

async fn converse(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        zone.lock().asked.tcp += 1;
        let Ok(question) = Message::from_vec(&question) else {
            return;
        };
        for answer in answers(&question, &zone, false) {
            let bytes = answer.to_vec().expect("an answer of ours");
            let length = u16::try_from(bytes.len()).expect("an answer that fits");
            let framed = [&length.to_be_bytes()[..], &bytes].concat();
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }
}

/// The datagrams or messages that answer a question.
fn answers(question: &Message, zone: &Mutex<Zone>, udp: bool) -> Vec<Message> {
    let query = question.queries[0].clone();
    let (name, kind) = (query.name().clone(), query.query_type());
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query);
    let says = zone
        .lock()
        .names
        .get(&name.to_ascii().to_lowercase())
        .cloned();
    let record = |ttl, data| Record::from_rdata(name.clone(), ttl, data);
    let host = |ip: IpAddr, ttl| match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A) => Some(record(ttl, RData::A(A(ip)))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(record(ttl, RData::AAAA(AAAA(ip)))),
        _ => None,
    };
    match says {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(Says::Code(code)) => answer.metadata.response_code = code,
        Some(Says::Silence) => return Vec::new(),
        Some(Says::Hosts(all, ttl)) => {
            answer.add_answers(all.into_iter().filter_map(|ip| host(ip, ttl)));
        }
        Some(Says::Services(all, ttl)) if kind == RecordType::SRV => {
            answer.add_answers(all.into_iter().map(|(priority, weight, port, target)| {
                let target = Name::from_ascii(format!("{target}.")).expect("a name");
                record(ttl, RData::SRV(SRV::new(priority, weight, port, target)))
            }));
        }
        Some(Says::Services(..)) => {}
        Some(Says::Forged(forged, real)) => {
            let mut lie = answer.clone();
            lie.metadata.id = !lie.metadata.id;
            lie.add_answers(host(forged, 60));
            answer.add_answers(host(real, 1));
            return match udp {
                true => vec![lie, answer],
                false => vec![answer],
            };
        }
    }
    vec![answer]
}
