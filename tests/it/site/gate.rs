//! A way to the store on which answers can be held, as a slow network does.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to the store. Questions always pass; answers pass while it is open.
pub struct Gate {
    /// Where it listens.
    pub at: SocketAddr,
    open: watch::Sender<bool>,
}

impl Gate {
    /// Starts an open gate in front of `store`.
    pub async fn start(store: SocketAddr) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let at = listener.local_addr().expect("an address");
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((edge, _)) = listener.accept().await {
                tokio::spawn(pass(edge, store, is_open.clone()));
            }
        });
        Gate { at, open }
    }

    /// Holds answers, or lets them pass.
    pub fn hold(&self, held: bool) {
        self.open.send_replace(!held);
    }
}

/// Carries one connection until either side ends it.
async fn pass(edge: TcpStream, store: SocketAddr, mut is_open: watch::Receiver<bool>) {
    let Ok(store) = TcpStream::connect(store).await else {
        return;
    };
    let _ = (edge.set_nodelay(true), store.set_nodelay(true));
    let ((mut from_edge, mut to_edge), (mut from_store, mut to_store)) =
        (edge.into_split(), store.into_split());
    let answers = async {
        let mut buffer = [0; 16_384];
        while let Ok(n @ 1..) = from_store.read(&mut buffer).await {
            if is_open.wait_for(|open| *open).await.is_err()
                || to_edge.write_all(&buffer[..n]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        _ = copy(&mut from_edge, &mut to_store) => {}
        () = answers => {}
    }
}
