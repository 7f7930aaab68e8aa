export { BufferAttribute, BufferGeometry, DataTexture, DoubleSide, FrontSide, GLSL3, LinearFilter, Mesh, PerspectiveCamera, RawShaderMaterial, Scene, WebGLRenderer } from "three";
