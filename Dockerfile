# A static binary in an image of its own, run by a user who is not root. Both images can be replaced:
#   docker build --build-arg GO_IMAGE=registry.example/golang:1.26 -t nsready .
ARG GO_IMAGE=golang:1.26
ARG BASE_IMAGE=scratch

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /out/nsready ./cmd/nsready

FROM ${BASE_IMAGE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/nsready /nsready
USER 10001:10001
EXPOSE 8000 8001
ENTRYPOINT ["/nsready"]
CMD ["serve", "-collector", ":8001", "-admin", ":8000"]
