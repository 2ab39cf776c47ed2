package api

import (
	"encoding/binary"
	"fmt"
	"io"
)

// MethodNetworks tells a guest that runs which networks it is in now.
const MethodNetworks Method = "networks"

// Bounds of the payload of an Ethernet frame, in bytes. It is a struct
// virtio_net_hdr (include/uapi/linux/virtio_net.h) in the order of the guest's CPU,
// and then the frame as it would be on a wire, with or without a VLAN's tag. A frame
// holds one packet of IP, or what a device's offloads have left together of several.
const (
	EthernetHeader = 10
	minEthernet    = 10 + 14
	MaxEthernet    = 10 + 18 + 65535
)

// NICRequest opens a connection of PurposeNIC. The guest makes a network device, which
// is gone when the connection has ended, and answers with a Reply. After one without
// an error, both sides send frames of KindEthernet, each as it comes.
type NICRequest struct {
	// NIC says how the device is configured. It gets the first free name ethI.
	NIC NIC `json:"nic"`
	// Segments says that the host takes several segments of TCP in one frame, for
	// somebody else to take apart.
	Segments bool `json:"segments,omitempty"`
}

// NetworksRequest says what a container's networks are from now on.
type NetworksRequest struct {
	ID string `json:"id"` // of the container
	// NICs are all devices that the guest has. One of its boot that is missing here is
	// taken away for good. The routes over a gateway that is new to its device are made.
	NICs []NIC `json:"nics"`
	// Hosts and DNS are for /etc/hosts and /etc/resolv.conf, as in StartRequest, unless
	// somebody in the container has changed the file.
	Hosts []Host `json:"hosts,omitempty"`
	DNS   DNS    `json:"dns"`
}

// PutEthernetHeader makes b, whose payload begins at HeaderSize, a whole frame of
// KindEthernet. What is too long or too short is an error.
func PutEthernetHeader(b []byte) error {
	n := len(b) - HeaderSize
	if n < minEthernet || n > MaxEthernet {
		return fmt.Errorf("write Ethernet frame of %d bytes: %w", n, ErrFrame)
	}
	b[0] = byte(KindEthernet)
	binary.BigEndian.PutUint32(b[1:], uint32(n))
	return nil
}

// ReadEthernet reads one frame of KindEthernet into buf, of at least MaxEthernet
// bytes, and nothing of any other. The payload is valid until the next call.
func ReadEthernet(r io.Reader, buf []byte) ([]byte, error) {
	var head [HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	k, n := Kind(head[0]), binary.BigEndian.Uint32(head[1:])
	if k != KindEthernet || n < minEthernet || n > MaxEthernet {
		return nil, fmt.Errorf("frame of kind %d, %d bytes, where Ethernet belongs: %w", k, n, ErrFrame)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return nil, fmt.Errorf("read Ethernet frame: %w", unexpected(err))
	}
	return buf[:n], nil
}
