export { BufferAttribute, BufferGeometry, DataTexture, DoubleSide, GLSL3, LinearFilter, Mesh, PerspectiveCamera, RawShaderMaterial, Scene, WebGLRenderer } from "three";
