// The load "frame" on tokio, in one thread, as tokio-util's documentation writes it: a frame at a
// time, by LengthDelimitedCodec, and each answer is flushed. It says its port, and serves for ever.

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

async fn serve(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut frames = Framed::new(stream, LengthDelimitedCodec::new());
    while let Some(Ok(frame)) = frames.next().await {
        if frames.send(frame.freeze()).await.is_err() {
            return;
        }
    }
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{{\"port\": {}}}", listener.local_addr()?.port());
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    tokio::task::spawn_local(serve(stream));
                }
            })
            .await
    })
}
