# SPDX-License-Identifier: Apache-2.0
# bmp_node in a container. NOT BUILT OR RUN where it was written: no Docker and no GPU were at hand.
# docs/docker.md says how to use it; a test reads it and checks that what it names exists.

# humble, jazzy, kilted or lyrical. BASE_IMAGE: any other image with ROS 2 in /opt/ros/$ROS_DISTRO
# and Python 3.10 to 3.14; on a Jetson see docs/docker.md.
ARG ROS_DISTRO=jazzy
ARG BASE_IMAGE=ros:${ROS_DISTRO}-ros-base
FROM ${BASE_IMAGE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      build-essential cmake python3-dev python3-venv python3-colcon-common-extensions \
      ros-${ROS_DISTRO}-vision-msgs ros-${ROS_DISTRO}-foxglove-msgs \
 && rm -rf /var/lib/apt/lists/*

# Parts of requirements/: torch brings PyTorch with CUDA, 5 GB. A Jetson's PyTorch is NVIDIA's own
# and comes with the base image: LAYERS=base.
ARG LAYERS="base torch"
ARG ROS_SETUP=/opt/ros/${ROS_DISTRO}/setup.bash

# Python packages first: a change of the code does not install them again.
WORKDIR /opt/bmp_ros
COPY requirements requirements
COPY scripts scripts
RUN source ${ROS_SETUP} && PIP_NO_CACHE_DIR=1 python3 scripts/set_up --no-build ${LAYERS}
COPY . .
RUN source ${ROS_SETUP} && python3 scripts/set_up ${LAYERS}

# Weights lie in a volume. Anybody may write there: the container should run as the user of the
# other nodes, see docs/docker.md.
ENV BMP_MODELS=/models HOME=/tmp
RUN mkdir -m 1777 /models
VOLUME /models

STOPSIGNAL SIGINT
ENTRYPOINT ["/opt/bmp_ros/scripts/with_ros"]
CMD ["ros2", "launch", "bmp_ros", "bmp.launch.py", "python:=/opt/bmp_ros/.venv/bin/python"]
