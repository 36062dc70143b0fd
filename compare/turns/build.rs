//! Client and server of the gRPC service. It is described here rather than in a `.proto` file, so that nothing but Rust is needed to
//! build it; its message is a derive of prost's.

fn main() {
    #[cfg(feature = "grpc")]
    {
        use tonic_build::manual::{Builder, Method, Service};
        let call = Method::builder()
            .name("call")
            .route_name("Call")
            .input_type("crate::grpc::Frame")
            .output_type("crate::grpc::Frame")
            .codec_path("tonic_prost::ProstCodec")
            .build();
        Builder::new().compile(&[Service::builder().package("compare").name("Frames").method(call).build()]);
    }
}
