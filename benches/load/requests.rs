//! Measures what a request for 1 KiB on a kept connection costs the proxy, in a closed loop.
//!
//! In: connections (`--count`), the window, and with `--browser` the head of a browser. Out: requests a
//! second, CPU per 1,000 requests, latency.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::client::{self, Conn, PATIENCE};
use crate::node::KIB;
use crate::{BoxError, Options, h2, per_thousand, percentiles};

/// Time before the window in which caches and pools fill.
const WARM_UP: Duration = Duration::from_millis(500);

/// The fields that Chromium sends between `Host` and `Cookie` when a script requests its page's own server.
const BROWSER: &str = "Connection: keep-alive\r\n\
     sec-ch-ua: \"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
     sec-ch-ua-mobile: ?0\r\n\
     sec-ch-ua-platform: \"Linux\"\r\n\
     User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
     Chrome/142.0.0.0 Safari/537.36\r\n\
     Accept: */*\r\n\
     Sec-Fetch-Site: same-origin\r\n\
     Sec-Fetch-Mode: cors\r\n\
     Sec-Fetch-Dest: empty\r\n\
     Referer: https://bench.test/portfolio/overview\r\n\
     Accept-Encoding: gzip, deflate, br, zstd\r\n\
     Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n";

/// Latencies of the requests so far, in nanoseconds.
type Done = Rc<RefCell<Vec<u64>>>;

/// Measures.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let done = Done::default();
    LocalSet::new()
        .run_until(async {
            let mut loops = Vec::new();
            for _ in 0..options.count {
                if options.h2 {
                    let mut requests = h2::connect(options).await?;
                    let cookie = h2::whole(&mut requests, "/kib", "").await?;
                    let done = done.clone();
                    loops.push(tokio::task::spawn_local(async move {
                        loop {
                            let asked = Instant::now();
                            h2::whole(&mut requests, "/kib", &cookie).await?;
                            done.borrow_mut().push(asked.elapsed().as_nanos() as u64);
                        }
                    }));
                    continue;
                }
                let (mut conn, cookie) = first(options).await?;
                let lines = match options.browser {
                    true => format!("{BROWSER}{cookie}"),
                    false => cookie,
                };
                let done = done.clone();
                loops.push(tokio::task::spawn_local(async move {
                    again(&mut conn, &lines, &done).await
                }));
            }
            sleep(WARM_UP).await;
            done.borrow_mut().clear();
            let (begun, cpu) = (Instant::now(), options.proxy.map(|p| p.cpu_ns()));
            sleep(options.window).await;
            let cpu = options
                .proxy
                .zip(cpu)
                .map(|(p, before)| p.cpu_ns() - before);
            let (latencies, took) = (done.take(), begun.elapsed());
            let failed = loops.iter().filter(|l| l.is_finished()).count();
            let mut figures = percentiles(latencies.clone());
            figures["per_second"] = json!(latencies.len() as f64 / took.as_secs_f64());
            figures["cpu_us_per_1000"] = json!(per_thousand(cpu, latencies.len()));
            figures["proxy_busy"] = json!(cpu.map(|c| c as f64 / took.as_nanos() as f64));
            figures["failed"] = json!(failed);
            Ok(figures)
        })
        .await
}

/// Connects and sends one request, to get the stickiness cookie for later requests.
async fn first(options: &Options) -> Result<(Conn, String), BoxError> {
    let mut conn = client::connect(options, None).await?;
    client::ask(&mut conn, "/kib", false, "").await?;
    let (head, mut body) = client::head(&mut conn, "200").await?;
    while body.len() < KIB {
        timeout(PATIENCE, conn.read_buf(&mut body)).await??;
    }
    let line = head
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("set-cookie:"));
    let pair = line
        .and_then(|l| l.split_once(':'))
        .map(|(_, v)| v.split(';').next());
    let cookie = pair
        .flatten()
        .map(|c| format!("Cookie:{c}\r\n"))
        .unwrap_or_default();
    Ok((conn, cookie))
}

async fn again(conn: &mut Conn, lines: &str, done: &Done) -> Result<(), BoxError> {
    let request = client::request("/kib", false, lines);
    let mut got = Vec::with_capacity(4096);
    loop {
        let asked = Instant::now();
        conn.write_all(request.as_bytes()).await?;
        conn.flush().await?;
        got.clear();
        let mut wanted = usize::MAX;
        while got.len() < wanted {
            if conn.read_buf(&mut got).await? == 0 {
                return Err("closed".into());
            }
            if wanted == usize::MAX {
                wanted = client::head_end(&got).map_or(usize::MAX, |end| end + KIB);
            }
        }
        done.borrow_mut().push(asked.elapsed().as_nanos() as u64);
    }
}
