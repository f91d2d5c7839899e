use tokio::io::AsyncReadExt;
# async fn greet(address: std::net::SocketAddr) -> std::io::Result<()> {
let mut stream = tokio::net::TcpStream::connect(address).await?;
let mut buffer = [0; 1024];
let length = stream.read(&mut buffer).await?;
# let _ = length;
# Ok(())
# }
