package qemu

import (
	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

var _ vmm.TemplateKeeper = (*Driver)(nil)

// StrayTemplates lists what is left of templates whose makers died.
func (d *Driver) StrayTemplates(dir string) ([]string, error) {
	return template.Store{Dir: dir}.Strays()
}

// RemoveStrayTemplates removes that.
func (d *Driver) RemoveStrayTemplates(dir string) error {
	return template.Store{Dir: dir}.RemoveStrays()
}
