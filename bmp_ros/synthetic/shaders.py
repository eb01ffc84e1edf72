# SPDX-License-Identifier: Apache-2.0
"""GLSL of the three passes: shadow depth, instances with distance, and the lit picture.

Clip space is not flipped: row 0 of every buffer is the top row of the picture.
"""

from __future__ import annotations

VERTEX = """
#version 330
uniform mat4 projection;
in vec3 position; in vec3 normal; in vec3 canonical; in float cover; in vec2 tag;
out vec3 world; out vec3 outward; out vec3 place; out float inside;
flat out int material; flat out int instance;
void main() {
    world = position; outward = normal; place = canonical; inside = cover;
    material = int(tag.x + 0.5); instance = int(tag.y + 0.5);
    gl_Position = projection * vec4(position, 1.0);
}
"""

SHADOW_FRAGMENT = """
#version 330
in float inside;
void main() { if (inside < 0.0) discard; }
"""

INSTANCE_FRAGMENT = """
#version 330
uniform vec3 eye; uniform vec3 forward;
in vec3 world; in float inside; flat in int instance;
layout(location = 0) out float person;
layout(location = 1) out float distance_ahead;
void main() {
    if (inside < 0.0) discard;
    person = float(instance) / 255.0;
    distance_ahead = dot(world - eye, forward);
}
"""

LIT_FRAGMENT = """
#version 330
uniform vec3 eye;
uniform vec3 to_sun; uniform vec3 sun_color; uniform vec3 sky_color; uniform vec3 ground_color;
uniform mat4 sun_projection; uniform float exposure; uniform float haze; uniform vec3 haze_color;
uniform vec3 lamp; uniform vec3 lamp_color;
uniform sampler2D materials; uniform sampler2DArray textures; uniform sampler3D noise;
uniform sampler2DShadow shadow;
in vec3 world; in vec3 outward; in vec3 place; in float inside;
flat in int material; flat in int instance;
layout(location = 0) out vec4 picture;

vec3 cloth(vec4 base, vec4 other, vec4 look, vec3 p, vec4 grain) {
    int pattern = int(look.x + 0.5);
    float s = other.a;
    vec3 first = base.rgb, second = other.rgb;
    if (pattern == 1) return fract(p.z * s) < 0.5 ? first : second;
    if (pattern == 2) return fract((p.x + 0.6 * p.y) * s) < 0.4 ? first : second;
    if (pattern == 3) {
        vec2 f = step(0.5, fract(vec2(p.x + 0.6 * p.y, p.z) * s));
        return mix(first, second, 0.5 * (f.x + f.y));
    }
    if (pattern == 4) {
        vec2 f = fract(vec2(p.x + 0.6 * p.y, p.z) * s) - 0.5;
        return dot(f, f) < 0.07 ? second : first;
    }
    if (pattern == 5) return texture(textures, vec3(p.xz * s * 0.15, look.y)).rgb;
    if (pattern == 6) {
        vec2 f = (p.xz - vec2(0.0, 0.50)) / 0.22 + 0.5;
        bool on = p.y < 0.0 && all(greaterThan(f, vec2(0))) && all(lessThan(f, vec2(1)));
        return on ? texture(textures, vec3(f, look.y)).rgb : first;
    }
    if (pattern == 7) return mix(first, second, clamp(p.z * 1.4 + 0.3, 0.0, 1.0));
    if (pattern == 8) return texture(noise, p * s * 0.12).a > 0.5 ? first : second;
    if (pattern == 9) return p.z > 0.48 ? first : second;
    return first;
}

vec3 skin(vec3 base, vec3 brows, vec3 p, vec4 grain) {
    vec3 color = base * (0.9 + 0.2 * grain.a);
    if (p.z > 0.79 && p.y < -0.09) {            // the face
        vec2 side = vec2(abs(p.x), p.z);
        vec2 lips = vec2(p.x / 0.026, (p.z - 0.842) / 0.009);
        float lip = 0.8 * smoothstep(1.2, 0.7, length(lips));
        color = mix(color, base * vec3(0.75, 0.42, 0.42), lip);
        if (abs(p.z - 0.843) < 0.0014 && abs(p.x) < 0.022) color *= 0.45;
        vec2 cheek = (side - vec2(0.04, 0.873)) / vec2(0.025, 0.02);
        float blush = 0.5 * smoothstep(1.2, 0.0, length(cheek));
        color = mix(color, base * vec3(1.08, 0.8, 0.78), blush);
        float arch = p.z - 0.9285 + 3.0 * pow(side.x - 0.03, 2.0);
        vec2 brow = vec2((side.x - 0.034) / 0.021, arch / 0.005);
        color = mix(color, brows, 0.9 * smoothstep(1.2, 0.7, length(brow)));
        vec2 lid = (side - vec2(0.0315, 0.904)) / vec2(0.022, 0.013);
        color *= mix(0.55, 1.0, smoothstep(0.75, 1.5, length(lid)));
        vec2 nostril = (side - vec2(0.009, 0.868)) / vec2(0.005, 0.003);
        color *= mix(0.35, 1.0, smoothstep(0.6, 1.2, length(nostril)));
    }
    return color;
}

vec3 eyeball(vec3 iris, vec3 p) {
    float r = length(vec2(abs(p.x) - 0.0315, p.z - 0.904));
    if (r < 0.0035) return vec3(0.01);
    if (r < 0.0075) return iris * 1.5 + 0.02;
    return vec3(0.75, 0.72, 0.70);
}

void main() {
    if (inside < 0.0) discard;
    vec4 base = texelFetch(materials, ivec2(0, material), 0);
    vec4 other = texelFetch(materials, ivec2(1, material), 0);
    vec4 look = texelFetch(materials, ivec2(2, material), 0);
    int kind = int(base.a + 0.5);
    vec3 view = normalize(eye - world);
    vec3 n = normalize(outward);
    vec4 grain = texture(noise, place * 9.0);
    vec3 color;
    if (kind == 5) {
        picture = vec4(pow(clamp(base.rgb * texture(textures, vec3(place.xy * other.a, look.y)).rgb
            * exposure, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
        return;
    }
    if (kind == 0) {
        vec4 fine = texture(noise, place * 41.0);
        color = cloth(base, other, look, place, grain) * (0.90 + 0.20 * fine.a);
        n = normalize(n + look.w * (0.6 * (grain.xyz - 0.5) + 0.15 * (fine.xyz - 0.5)));
    } else if (kind == 1) {
        color = skin(base.rgb, base.rgb * 0.25, place, grain);
    } else if (kind == 2) {
        color = eyeball(base.rgb, place);
    } else if (kind == 3) {
        float strand = texture(noise, vec3(place.xy * 60.0, place.z * 5.0)).a;
        color = base.rgb * (0.45 + 1.1 * strand * strand);
        n = normalize(n + 0.5 * (texture(noise, vec3(place.xy * 40.0, place.z * 6.0)).xyz - 0.5));
    } else {
        color = base.rgb * texture(textures, vec3(place.xy * other.a, look.y)).rgb;
    }
    if (dot(n, view) < 0.0) n = n - 2.0 * dot(n, view) * view;
    vec4 s = sun_projection * vec4(world + 0.012 * n, 1.0);
    vec3 at = s.xyz * 0.5 + 0.5;
    float lit = 1.0;
    if (all(greaterThan(at, vec3(0.0))) && all(lessThan(at, vec3(1.0)))) {
        vec2 step_size = 0.7 / vec2(textureSize(shadow, 0));
        lit = 0.5 * (texture(shadow, at + vec3(step_size, -0.0008))
            + texture(shadow, at + vec3(-step_size, -0.0008)));
    }
    float soft = kind == 1 ? 0.25 : 0.0;        // skin scatters light around the terminator
    float facing = max((dot(n, to_sun) + soft) / (1.0 + soft), 0.0);
    vec3 to_lamp = lamp - world;
    float near = 1.0 / (1.0 + 0.25 * dot(to_lamp, to_lamp));
    vec3 light = sun_color * facing * lit + mix(ground_color, sky_color, 0.5 + 0.5 * n.z)
        + lamp_color * near * max(dot(n, normalize(to_lamp)), 0.0);
    vec3 half_way = normalize(to_sun + view);
    float highlight = look.z * pow(max(dot(n, half_way), 0.0), 30.0) * lit;
    float rim = kind == 3 ? 0.0 : 0.25 * look.z * pow(1.0 - max(dot(n, view), 0.0), 4.0);
    color = color * light + sun_color * highlight + sky_color * rim;
    color = mix(color, haze_color, 1.0 - exp(-haze * length(eye - world)));
    color *= exposure;
    color = color * (1.0 + color / 6.0) / (1.0 + color * 0.72);   // shoulder of a film curve
    picture = vec4(pow(clamp(color, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}
"""
